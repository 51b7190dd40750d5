"""What was asked for, made definite: times, and seeds and labels, one an image; or a clear refusal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any, Literal

import torch
from torch import Tensor

from ddim.checkpoints import Checkpoint, load_tuned
from ddim.denoise import NONE, Conditions
from ddim.denoise import labels as labelled
from ddim.process import PerImage, Time, tau, usual_spacing
from ddim.refused import Refused
from ddim.solve import Solver, solver_named

UNSAID = ("auto", "uniform")
"""Spacings that say nothing against times that are given: the default, and the default of 0.1."""
Labels = int | Literal["cycle"] | Sequence[int] | Mapping[int, int] | Tensor | None
"""One class, one an image, seed modulo the number of classes, one a seed, or weights over classes float (B, K)."""


def seeds_of(
    n: int | None, seed: int, seeds: Sequence[int] | None, latents: Tensor | None, shape: Sequence[int]
) -> list[int]:
    """One seed an image: seed..seed+n-1, or those given; with latents, one a latent.

    Args:
        n, seed: how many images, and the first seed; or `seeds` themselves.
        latents: x_T (n, C, H, W) to start from, or None.
        shape: (C, H, W) that the model makes.

    Raises:
        Refused: n and seeds together, none of either, or latents of another number or shape.
    """
    if n is not None and seeds is not None:
        raise Refused("give n (with seed) or seeds, not both")
    if seeds is not None and seed:
        raise Refused(f"seed = {seed} counts from one seed up, and seeds names them all: give one of them")
    if latents is not None:
        if tuple(latents.shape[1:]) != tuple(shape):
            raise Refused(f"latents are {tuple(latents.shape[1:])} each, but this model makes {tuple(shape)}")
        n = len(latents) if n is None and seeds is None else n
    if seeds is None:
        if n is None or n < 1:
            raise Refused(f"ask for at least one image: n = {n}")
        seeds = range(seed, seed + n)
    seeds = list(seeds)
    if not seeds:
        raise Refused("seeds is empty: ask for at least one image")
    if latents is not None and len(latents) != len(seeds):
        raise Refused(f"{len(latents)} latents, but {len(seeds)} seeds or n")
    return seeds


def labels_of(
    label: int | Sequence[int] | Tensor | None, n: int, num_classes: int | None, null_label: int | None
) -> Tensor | None:
    """One class an image, int64 (n,), or None for an unconditional network or the null label.

    Raises:
        Refused: a label where there are no classes, outside 0..K-1, or not one an image; none where one is needed.
    """
    if label is None:
        if num_classes is not None and null_label is None:
            raise Refused(f"this model knows only classes 0..{num_classes - 1}; give a label")
        return None
    if num_classes is None:
        raise Refused(f"label = {label} was asked for, but this model was trained without classes")
    given = torch.as_tensor(label, device="cpu").flatten()
    values = given.to(torch.int64)
    if bool((values != given).any()):
        raise Refused(f"classes are whole numbers, got {label}")
    if len(values) not in (1, n):
        raise Refused(f"{n} images need 1 label or {n}, got {len(values)}")
    if int(values.min()) < 0 or int(values.max()) >= num_classes:
        bad = int(values[(values < 0) | (values >= num_classes)][0])
        raise Refused(f"label {bad} is outside 0..{num_classes - 1}, the classes this model knows")
    return values.expand(n).clone()


@dataclass(frozen=True, eq=False)
class LabelRule:
    """Seeds -> the condition "label" of their images."""

    label: Labels
    num_classes: int | None
    null_label: int | None
    device: torch.device

    def __post_init__(self) -> None:
        if isinstance(self.label, str) and self.label != "cycle":
            raise Refused(f'`label` is a class, one an image, or "cycle"; got {self.label!r}')
        if isinstance(self.label, str) and self.num_classes is None:
            raise Refused("label cycle was asked for, but this model was trained without classes")
        if self.label is None or isinstance(self.label, Number):
            labels_of(self.label, 1, self.num_classes, self.null_label)  # what cannot work is refused at once

    def __call__(self, seeds: Sequence[int]) -> Conditions:
        label: Any = self.label
        if isinstance(label, Tensor) and label.is_floating_point() and label.ndim == 2:
            return labelled(label.to(self.device))
        if isinstance(label, str):
            label = [seed % int(self.num_classes or 1) for seed in seeds]
        elif isinstance(label, Mapping):
            label = [label[seed] for seed in seeds]
        found = labels_of(label, len(seeds), self.num_classes, self.null_label)
        return NONE if found is None else labelled(found.to(self.device))

    def as_json(self) -> Any:
        """As a recipe keeps it."""
        if isinstance(self.label, Tensor):
            return self.label.tolist()
        if isinstance(self.label, Mapping):
            return {str(k): v for k, v in self.label.items()}
        return self.label if self.label is None or isinstance(self.label, str) else torch.as_tensor(self.label).tolist()


Eta = PerImage | Tensor
"""One eta for all images, or one an image."""


def eta_asked(eta: Eta) -> Any:
    """A number, or a list of them: as a recipe keeps it."""
    if isinstance(eta, Sequence):
        return list(eta)
    return eta.tolist() if hasattr(eta, "tolist") else eta


def solver_asked(solver: str | Solver[Any], eta: Any) -> Solver[Any]:
    """A solver by its name and eta (`eta_asked`), or as it was given; then it has its own eta."""
    if isinstance(solver, str):
        return solver_named(solver, eta)
    if any(eta) if isinstance(eta, list) else eta:
        raise Refused(f"eta = {eta} belongs to the solver object: give it there")
    return solver


def times_named(
    checkpoint: Checkpoint, steps: int | None, spacing: str | Sequence[Time], solver: str
) -> tuple[Any, ...]:
    """tau by a spacing's name; also "auto", the usual one of the process, "tuned", the times kept for this solver, and
    "diffusers", the file's own walk."""
    process = checkpoint.process
    spacing = spacing if isinstance(spacing, str) else list(spacing)  # rows of NumPy and torch have no truth value
    if spacing == "tuned":
        return tau(process, steps, load_tuned(checkpoint.folder, solver, steps, checkpoint.identity))
    if spacing == "diffusers":
        return checkpoint.own_tau(steps)
    named = usual_spacing(process) if spacing == "auto" else spacing
    offset = {"offset": checkpoint.steps_offset} if spacing == "leading" and process.discrete else {}
    return tau(process, steps, named, **offset)


def times_asked(
    checkpoint: Checkpoint,
    steps: int | None,
    spacing: str | Sequence[Time],
    times: Sequence[Time] | None,
    solver: str | Solver[Any],
) -> tuple[Any, ...]:
    """tau of a walk asked for by its times, or by steps and spacing; 20 steps unless said otherwise.

    Raises:
        Refused: times and a spacing; times that are none of the process's.
    """
    if times is None:
        usual = 20 if steps is None and isinstance(spacing, str) else steps
        return times_named(checkpoint, usual, spacing, solver if isinstance(solver, str) else "ddim")
    if not isinstance(spacing, str) or spacing not in UNSAID:
        raise Refused(f"tau names the times and spacing = {spacing!r} would too: give one of them")
    if checkpoint.ends_at and times[-1] == checkpoint.ends_at:
        return tau(checkpoint.process, None, (*times, 0))[:-1]  # the file's own walk, which stops early
    return tau(checkpoint.process, steps, times)
