"""What encoding gives: latents with the recipe that made them and a certificate of what was measured.

A file of latents is one safetensors file: tensors for states and measurements, the recipe as JSON in its
metadata.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim.files import read_tensors, write_tensors
from ddim.refused import Refused
from ddim.uses.certificate import Certificate, LatentRecipe, Reproduction
from ddim.uses.latentfile import LISTS, read_columns, read_recipe

FORMAT = "1"


@dataclass(frozen=True, eq=False, repr=False)
class Latents:
    """Latents of B images. Indexes, stacks and computes like its tensor `x_T`.

    Attributes:
        x_T: the states at tau[0], (B, *): what one would sample from.
        recipe: how they were made.
        certificate: what was measured.
        coupled: bool (B,): the images encoded by the coupled scheme, which `states` is for.
        states: float64 (K, 2, *): x at tau[0] and tau[1] of the K coupled images, in order; None without any.
        unsolved: indices of the images whose implicit solve did not reach the tolerance on every step.
        names: of the images, where they have any.
        seeds: of the noise that roads with a start begin with, one an image.
        fidelity: of the autoencoder, where the states are its latents; the certificate is of the inversion alone.
    """

    x_T: Tensor  # noqa: N815 -- the paper's letter
    recipe: LatentRecipe
    certificate: Certificate
    coupled: Tensor
    states: Tensor | None = None
    unsolved: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    fidelity: Reproduction | None = None
    seeds: tuple[int, ...] = ()

    def __repr__(self) -> str:
        made = f"{self.recipe.method}, {len(self.recipe.tau) - 1} steps from {self.recipe.tau[0]}"
        return f"Latents{tuple(self.shape)}, {made}: {self.said}"

    @property
    def said(self) -> str:
        """The certificate in words; with an autoencoder two of them, one after another and never as one number."""
        if self.fidelity is None:
            return str(self.told)
        return f"inversion, in latents: {self.told}\nautoencoder alone, in pictures: {self.fidelity}"

    @property
    def told(self) -> Certificate:
        """The certificate for people: what a solve left over says nothing of the images the coupled scheme carried."""
        return replace(self.certificate, residual=self.certificate.residual.masked_fill(self.coupled, math.nan))

    @property
    def shape(self) -> torch.Size:
        return self.x_T.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.x_T.dtype

    @property
    def device(self) -> torch.device:
        return self.x_T.device

    def __len__(self) -> int:
        return len(self.x_T)

    def __getitem__(self, index: Any) -> Tensor:
        return self.x_T[index]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.x_T)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """torch functions see x_T: torch.stack([z[0], z[1]]), torch.linalg.norm(z), ..."""

        def plain(value: Any) -> Any:
            if isinstance(value, Latents):
                return value.x_T
            return type(value)(plain(v) for v in value) if type(value) in (list, tuple) else value

        return func(*plain(args), **{k: plain(v) for k, v in (kwargs or {}).items()})

    def to(self, device: torch.device | str) -> Latents:
        """The same on another device."""
        states = None if self.states is None else self.states.to(device)
        return replace(self, x_T=self.x_T.to(device), states=states)

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, whole or not at all.

        Raises:
            Refused: the file exists.
        """
        tensors = {"x_T": self.x_T, "coupled": self.coupled, **vars(self.certificate)}
        if self.fidelity is not None:
            tensors |= {f"fidelity_{name}": value for name, value in vars(self.fidelity).items()}
        if self.states is not None:
            tensors["states"] = self.states
        recipe = {**asdict(self.recipe), **{name: list(getattr(self, name)) for name in LISTS}}
        write_tensors(path, tensors, {"ddim_latents": FORMAT, "recipe": json.dumps(recipe)}, new=True)

    @classmethod
    def load(cls, path: str | Path) -> Latents:
        """Read what `save` wrote.

        Raises:
            OSError, Refused: no such file; not latents of this library.
        """
        tensors, metadata = read_tensors(path)
        if metadata.get("ddim_latents") != FORMAT:
            raise Refused(f"{path} holds no latents of this version; make them with `ddim encode`")
        recipe, lists = read_recipe(metadata.get("recipe", ""), str(path))
        found = cls(recipe=recipe, **lists, **read_columns(tensors, str(path)))
        found.check(str(path))
        return found

    def check(self, where: str) -> None:
        """That its parts belong together.

        Raises:
            Refused: other numbers of images here and there; names `where`.
        """
        n, coupled = len(self), int(self.coupled.sum())
        counts = {name: len(value) for name, value in (vars(self.certificate) | {"coupled": self.coupled}).items()}
        if self.fidelity is not None:
            counts |= {f"fidelity_{name}": len(value) for name, value in vars(self.fidelity).items()}
        own = {name: len(self.recipe.conditions[name]) for name in _per_image(self.recipe.conditions)}
        counts |= own | {name: len(held) for name in ("names", "seeds") if (held := getattr(self, name))}
        odd = [f"{name} for {count}" for name, count in counts.items() if count != n]
        if odd:
            raise Refused(f"{where} holds {n} latents, but {odd[0]}")
        if any(not 0 <= i < n for i in self.unsolved):
            raise Refused(f"{where}: unsolved names images beyond its {n}")
        road, roads = self.certificate.road, self.recipe.roads
        if not torch.equal(self.coupled, road < 0) or bool(((road < -1) | (road >= len(roads))).any()):
            raise Refused(f"{where}: road names none of its {len(roads)} roads, or does not fit the coupled images")
        if not self.seeds and any(r.start is not None for r in roads):
            raise Refused(f"{where}: images were noised to the start of a road, but their seeds are missing")
        shape = None if self.states is None else tuple(self.states.shape)
        if (coupled or shape is not None) and shape != (coupled, 2, *self.shape[1:]):
            raise Refused(f"{where}: states of shape {shape} do not fit {coupled} coupled images, {tuple(self.shape)}")

    def part(self, start: int, stop: int) -> Latents:
        """The latents start..stop-1, with what is known of them."""
        at, own = slice(start, stop), self.recipe.conditions
        conditions = own | {name: own[name][at] for name in _per_image(own)}
        before, inside = int(self.coupled[:start].sum()), int(self.coupled[at].sum())
        certificate = Certificate(**{name: value[at] for name, value in vars(self.certificate).items()})
        return replace(
            self, x_T=self.x_T[at], recipe=replace(self.recipe, conditions=conditions), certificate=certificate,
            coupled=self.coupled[at], states=None if self.states is None else self.states[before : before + inside],
            fidelity=None if self.fidelity is None else Reproduction(*(v[at] for v in vars(self.fidelity).values())),
            unsolved=tuple(i - start for i in self.unsolved if start <= i < stop), names=self.names[at],
            seeds=self.seeds[at],
        )  # fmt: skip

    @classmethod
    def join(cls, parts: Sequence[Latents]) -> Latents:
        """Latents of several batches made by one recipe, as one.

        Raises:
            Refused: no parts, or parts of different recipes.
        """
        if not parts:
            raise Refused("there are no latents to join")
        if any(_shared(part.recipe) != _shared(parts[0].recipe) for part in parts):
            raise Refused("latents of different recipes cannot be joined")
        starts = [sum(len(p) for p in parts[:i]) for i in range(len(parts))]
        columns = vars(parts[0].certificate)
        measured = {name: torch.cat([getattr(p.certificate, name) for p in parts]) for name in columns}
        states = [p.states for p in parts if p.states is not None]
        return cls(
            torch.cat([p.x_T for p in parts]),
            _joined([p.recipe for p in parts]),
            Certificate(**measured),
            torch.cat([p.coupled for p in parts]),
            torch.cat(states) if states else None,
            tuple(start + i for start, p in zip(starts, parts, strict=True) for i in p.unsolved),
            tuple(name for p in parts for name in p.names),
            _joined_fidelity(parts),
            tuple(seed for p in parts for seed in p.seeds),
        )


# Of one network. Any other condition that is a list has one entry an image.
GUIDANCE = ("guidance", "rescale", "interval")


def _per_image(conditions: Mapping[str, Any]) -> list[str]:
    return [name for name, value in conditions.items() if isinstance(value, list) and name not in GUIDANCE]


def _shared(recipe: LatentRecipe) -> LatentRecipe:
    """What all images of a recipe have in common: the names of the conditions that are an image's own, no values."""
    own = _per_image(recipe.conditions)
    return replace(recipe, conditions={k: None if k in own else v for k, v in recipe.conditions.items()})


def _joined_fidelity(parts: Sequence[Latents]) -> Reproduction | None:
    found = [p.fidelity for p in parts if p.fidelity is not None]
    if len(found) not in (0, len(parts)):
        raise Refused("latents of different spaces cannot be joined")
    columns = [[vars(f)[name] for f in found] for name in ("psnr", "max_error")]
    return Reproduction(*map(torch.cat, columns)) if found else None


def _joined(recipes: Sequence[LatentRecipe]) -> LatentRecipe:
    merged = dict(recipes[0].conditions)
    for name in _per_image(merged):
        merged[name] = [v for r in recipes for v in r.conditions[name]]
    return replace(recipes[0], conditions=merged)
