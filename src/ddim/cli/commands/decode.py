"""`ddim decode`: a file of latents to images."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from ddim.cli.latent_common import labels_of, save_images
from ddim.cli.show import new_folder
from ddim.model import Model, load
from ddim.pixels import grid, save_png, to_uint8
from ddim.refused import Refused
from ddim.uses import Latents


@dataclass(frozen=True)
class Command:
    """Latents to images: those they were made from, or, under another recipe, new ones (it says so)."""

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    latents: tyro.conf.Positional[Path]
    """A file from `ddim encode`."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the images go: a new or empty folder."""
    steps: int | None = None
    """Another number of steps than the encoding's."""
    spacing: str = "uniform"
    """With --steps: which steps."""
    label: str | None = None
    """Another class, or one an image "3,1,4"; default: those of the encoding."""
    guidance: float | None = None
    """Another weight of classifier-free guidance; default: that of the encoding."""
    batch_size: int = 50
    """Images at a time."""
    precision: Literal["fp32", "fp64"] = "fp32"
    """Number format of the network; take that of the encoding."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""

    def run(self) -> None:
        if self.out is None:
            raise Refused("say where the images go: --out DIR")
        if self.batch_size < 1:
            raise Refused(f"--batch-size must be at least 1, got {self.batch_size}")
        latents = Latents.load(self.latents)
        model = load(self.model, device=self.device)
        if tuple(latents.shape[1:]) != tuple(model.shape):
            raise Refused(
                f"{self.latents} holds latents of shape {tuple(latents.shape[1:])}, {self.model} makes {model.shape}"
            )
        images = self._decoded(model, latents.to(model.device))
        out = new_folder(self.out)
        names = unique(latents.names, {"grid"}) or [f"{i:06d}" for i in range(len(latents))]
        recipe = {"model": self.model, "weights": model.weights_hash, "latents": str(self.latents), "steps": self.steps}
        save_images(out, images, names, {**recipe, "label": self.label, "guidance": self.guidance})
        save_png(out / "grid.png", grid(list(to_uint8(images[:64]))))
        print(f"{len(images)} images in {out}")

    def _decoded(self, model: Model, latents: Latents) -> Any:
        conditions = latents.recipe.conditions
        own = None if self.label is None else labels_of(model, self.label, len(latents))
        label: Any = conditions.get("label") if self.label is None else own
        guidance = self.guidance if self.guidance is not None else conditions.get("guidance", 1.0)
        each, images, notes = isinstance(label, list) and len(label) > 1, [], list[str]()
        for i in range(0, len(latents), self.batch_size):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                images.append(
                    model.decode(
                        latents.part(i, i + self.batch_size), steps=self.steps, spacing=self.spacing,
                        label=label[i : i + self.batch_size] if each else label, guidance=guidance,
                        precision=self.precision,
                    )
                )  # fmt: skip
            notes += [str(w.message) for w in caught if w.category is UserWarning and "recipe" in str(w.message)]
        for note in notes[:1]:  # every batch has the same to say
            print(f"note: {note}")
        return torch.cat(images)


def unique(names: tuple[str, ...], taken: set[str]) -> list[str]:
    """Names with a number after those that come twice (images of several folders) or are taken."""
    found: list[str] = []
    for name in names:
        others = {*taken, *names, *found}
        numbered = (f"{name}-{k}" for k in itertools.count())
        alone = names.count(name) == 1 and name not in taken
        found.append(name if alone else next(n for n in numbered if n not in others))
    return found
