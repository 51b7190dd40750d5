"""Evaluation as a job: cells of a table (solver, eta, steps, spacing), each made once, measured and kept.

A cell's features lie under a name that is a hash of everything that decides them: weights, times, solver,
seeds, labels, precision, extractor (`measured`). So an interrupted evaluation goes on where it stopped, and one
more row costs one more row. Images are measured as they would be saved, rounded to 8 bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddim.data import Images
from ddim.denoise import Denoiser
from ddim.files import digest
from ddim.jobs.evaluate.measured import KEPT, Made, collected
from ddim.metrics import Extractor
from ddim.pixels import from_uint8, to_uint8
from ddim.process import generator, noise
from ddim.refused import Refused
from ddim.solve import DDIM, Solver, solver_named, step_noise, trajectory

FORMAT = 2  # raise when what a cell stores, or how it is made, changes


@dataclass(frozen=True, order=True)
class Cell:
    """One row of the table. eta None is sigma-hat, DDPM's larger noise."""

    solver: str
    eta: float | None
    steps: int
    spacing: str

    @property
    def noise_name(self) -> str:
        """The row's name in the paper's Table 1: its eta, or sigma-hat."""
        return "sigma-hat" if self.eta is None else f"{self.eta:g}"

    @property
    def name(self) -> str:
        return f"{self.solver} eta={self.noise_name} {self.spacing} S={self.steps}"

    def method(self) -> Solver[Any]:
        """The solver of this row.

        Raises:
            Refused: an unknown solver, or an eta it cannot have.
        """
        if self.eta is not None:
            return solver_named(self.solver, self.eta)
        if self.solver != "ddim":
            raise Refused(f"sigma-hat is a noise of solver 'ddim', not of {self.solver!r}")
        return DDIM(sigma="hat")


@dataclass(frozen=True, eq=False)
class Subject:
    """What is evaluated: a model reduced to what sampling needs.

    Attributes:
        reading: what decides the images beside the weights (`Checkpoint.reading`), as JSON.
        denoiser: seeds of a batch -> the denoiser with their conditions bound.
        tau: (steps, spacing, solver) -> the times.
        to_unit: what the network makes -> images in [-1, 1].
        settings: everything else that decides the images (labels, guidance, clip, precision), as JSON.
    """

    name: str
    weights: str
    shape: tuple[int, ...]
    reading: Mapping[str, Any]
    denoiser: Callable[[list[int]], Denoiser]
    tau: Callable[[int, str, str], tuple[int, ...]]
    to_unit: Callable[[Tensor], Tensor]
    device: torch.device | str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)


def table_of(
    steps: Sequence[int], etas: Sequence[float], solvers: Sequence[str], spacings: Sequence[str], *, sigma_hat: bool
) -> list[Cell]:
    """All rows: every eta (and sigma-hat) for "ddim", the one noise they have for the other solvers.

    Raises:
        Refused: nothing to do, or an impossible solver or eta.
    """
    if not (steps and solvers and spacings):
        raise Refused("an evaluation needs at least one of each: steps, solver, spacing")
    cells = []
    for solver in solvers:
        own = [1.0 if solver_named(solver).stochastic else 0.0]
        noises: list[float | None] = [*etas, *([None] if sigma_hat else [])] if solver == "ddim" else [*own]
        cells += [Cell(solver, eta, S, spacing) for spacing in spacings for eta in noises for S in steps]
    for cell in cells:
        cell.method()
    return list(dict.fromkeys(cells))


def make(
    subject: Subject, cell: Cell, seeds: Sequence[int], extractor: Extractor, *, batch_size: int, folder: Path
) -> Iterator[int | Made]:
    """Make and measure one cell, or read it back: yields how many images are done, and at last the `Made`.

    Raises:
        Refused: an impossible cell; images that are not finite.
    """
    times, solver = subject.tau(cell.steps, cell.spacing, cell.solver), cell.method()
    key = {
        "format": FORMAT, "weights": subject.weights, "shape": list(subject.shape), "tau": list(times),
        "reading": dict(subject.reading), "solver": cell.solver, "eta": cell.noise_name,
        "seeds": list(seeds), "settings": dict(subject.settings), "extractor": stamp_of(extractor),
    }  # fmt: skip

    def batch(at: slice) -> Made:
        own = list(seeds[at])
        began = time.perf_counter()
        x_T = noise(own, subject.shape, device=subject.device)
        with torch.no_grad():
            walk = list(trajectory(subject.denoiser(own), solver, times, x_T, step_noise(own, x_T)))
        images, calls = subject.to_unit(walk[-1].x).cpu(), sum(step.calls for step in walk)
        seconds = time.perf_counter() - began
        if not bool(torch.isfinite(images).all()):
            raise Refused(f"{cell.name} made images that are not finite, first among seeds {own[0]}-{own[-1]}")
        pixels = to_uint8(images)
        features, logits = extractor.both(from_uint8(pixels))
        shown = pixels[: max(0, KEPT - at.start)]
        return Made(features, logits, shown, seconds / len(own), float(calls), times)

    yield from collected(folder, {"cell": cell.name, **key}, len(seeds), batch_size, batch)


def real(
    images: Images, index: npt.NDArray[np.int64], extractor: Extractor, *, batch_size: int, folder: Path
) -> Iterator[int | Made]:
    """Features of real images, by their places in the data; as `make`."""
    key = {"format": FORMAT, "data": images.report.sha256, "index": digest(index.tolist()),
           "extractor": stamp_of(extractor)}  # fmt: skip

    def batch(at: slice) -> Made:
        pixels = images.pixels[index[at]]
        return Made(*extractor.both(from_uint8(pixels)), pixels[: max(0, KEPT - at.start)])

    yield from collected(folder, key, len(index), batch_size, batch)


def split(images: Images, held_out: int, reference: int, seed: int = 0) -> tuple[npt.NDArray[np.int64], ...]:
    """Two disjoint random sets of places: at most `reference` for the reference, `held_out` for the noise floor.

    Raises:
        Refused: too few images for both.
    """
    if len(images) < held_out + min(reference, 2):
        raise Refused(
            f"{images.report.source} holds {len(images)} images: the noise floor needs n = {held_out} of them beside "
            "the reference; lower `n` or give `held_out`"
        )
    order = generator(seed, "evaluation split").permutation(len(images))
    return order[held_out : held_out + reference], order[:held_out]


def stamp_of(extractor: Extractor) -> dict[str, str]:
    """Name, resize and weights of an extractor."""
    return {"name": extractor.name, "resize": extractor.resize, "weights": extractor.weights_hash}
