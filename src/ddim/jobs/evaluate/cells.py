"""Evaluation as a job: cells of a table (solver, eta, steps, spacing), each made once, measured and kept.

A cell's features lie under a name that is a hash of everything that decides them: weights, times, solver,
seeds, labels, precision, extractor (`measured`). So an interrupted evaluation goes on where it stopped, and one
more row costs one more row. Images are measured as they would be saved, rounded to 8 bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ddim.data import Images
from ddim.files import digest
from ddim.jobs.cluster import Over
from ddim.jobs.evaluate.measured import KEPT, Made, collected, kept
from ddim.jobs.job import ALONE, Share
from ddim.metrics import Extractor
from ddim.model import Model, Sampler
from ddim.pixels import Pixels, from_uint8, to_uint8
from ddim.process import generator
from ddim.refused import Refused
from ddim.solve import DDIM, Solver, solver_named

SETTINGS = ("label", "guidance", "clip", "precision", "device")  # of a sampler's recipe, beside its weights and times
MORE = ("conditions", "null", "variance", "interval", "guide", "early", "at")  # of a recipe, where they are asked for
Calls = Callable[[int], None]
"""Hears how many network calls were made."""
FORMAT = 2  # raise when what a cell stores, or how it is made, changes


@dataclass(frozen=True, order=True)
class Cell:
    """One row of the table. eta None is sigma-hat, DDPM's larger noise; "learned" the variance the network predicts."""

    solver: str
    eta: float | str | None
    steps: int
    spacing: str

    @property
    def noise_name(self) -> str:
        """The row's name in the paper's Table 1: its eta, or sigma-hat; or sigma-learned."""
        return f"{self.eta:g}" if isinstance(self.eta, float | int) else f"sigma-{self.eta or 'hat'}"

    @property
    def label(self) -> str:
        """What the row's column of solvers says."""
        return self.solver

    @property
    def name(self) -> str:
        return f"{self.solver} eta={self.noise_name} {self.spacing} S={self.steps}"

    def method(self) -> Solver[Any]:
        """The solver of this row.

        Raises:
            Refused: an unknown solver, or an eta it cannot have.
        """
        if isinstance(self.eta, float | int):
            return solver_named(self.solver, self.eta)
        if self.eta not in (None, "learned"):
            raise Refused(f"the noise of a row is an eta, None (sigma-hat) or 'learned', got {self.eta!r}")
        if self.solver != "ddim":
            raise Refused(f"{self.noise_name} is a noise of solver 'ddim', not of {self.solver!r}")
        return DDIM(sigma="hat" if self.eta is None else "learned")

    def how(self) -> dict[str, Any]:
        """What `Model.sampler` is told to make this row's sampler."""
        own = isinstance(self.eta, float | int)
        named = {"solver": self.solver, "eta": self.eta} if own else {"solver": self.method()}
        return {"steps": self.steps, "spacing": self.spacing, **named}


OWN = "own"  # spacing of a student's row: its own times


@dataclass(frozen=True, order=True)
class Contender(Cell):
    """A row of another model than the report's, by its name; of a student, its own walk of so many steps."""

    model: str = ""

    @property
    def label(self) -> str:
        return self.model if self.spacing == OWN else f"{self.model} {self.solver}"

    @property
    def name(self) -> str:
        return f"{self.model} S={self.steps}" if self.spacing == OWN else f"{self.model} {super().name}"

    def how(self) -> dict[str, Any]:
        return {"steps": self.steps} if self.spacing == OWN else super().how()


def rivals_of(name: str, model: Model, cells: Sequence[Cell]) -> list[Cell]:
    """The rows of a rival: a student's own walks (a consistency student's of 1, 2, .. calls), else the same cells."""
    student = model.student
    if student is None:
        return [Contender(c.solver, c.eta, c.steps, c.spacing, name) for c in cells]
    steps = range(1, student.steps + 1) if student.consistent else (student.steps,)
    return [Contender("ddim", 0.0, S, OWN, name) for S in steps]


def table_of(
    steps: Sequence[int], etas: Sequence[float], solvers: Sequence[str], spacings: Sequence[str], *, sigma_hat: bool,
    sigma_learned: bool = False,
) -> list[Cell]:  # fmt: skip
    """All rows: every eta (and sigma-hat, and the learned one) for "ddim", the one noise the other solvers have.

    Raises:
        Refused: nothing to do, or an impossible solver or eta.
    """
    if not (steps and solvers and spacings):
        raise Refused("an evaluation needs at least one of each: steps, solver, spacing")
    cells = []
    for solver in solvers:
        own = [1.0 if solver_named(solver).stochastic else 0.0]
        hat, learned = [None] if sigma_hat else [], ["learned"] if sigma_learned else []
        noises: list[float | str | None] = [*etas, *hat, *learned] if solver == "ddim" else [*own]
        cells += [Cell(solver, eta, S, spacing) for spacing in spacings for eta in noises for S in steps]
    for cell in cells:
        cell.method()
    return list(dict.fromkeys(cells))


def key_of(sampler: Sampler, cell: Cell, seeds: Sequence[int], extractor: Extractor) -> dict[str, Any]:
    """Everything that decides the features of a cell, as JSON: the name of its file is a hash of this."""
    told, shape = sampler.recipe, sampler.space.image_shape
    return {
        "cell": cell.name, "format": FORMAT, "weights": told["weights"], "shape": list(shape),
        "tau": list(sampler.tau), "reading": dict(told["reading"]), "solver": cell.solver, "eta": cell.noise_name,
        "seeds": list(seeds), "settings": {name: told[name] for name in SETTINGS}, "extractor": stamp_of(extractor),
        **{name: told[name] for name in MORE if name in told},
    }  # fmt: skip


def make(
    sampler: Sampler, cell: Cell, seeds: Sequence[int], extractor: Extractor,
    *, batch_size: int, folder: Path, share: Share = ALONE, over: Over = map, heard: Calls = lambda calls: None,
) -> Iterator[int | Made]:  # fmt: skip
    """Make and measure one cell, or read it back: yields how many images are done, and at last the `Made`.

    Args:
        sampler: of this cell (`Cell.how`).
        share: which batches this process makes; whoever has the last of them yields the `Made`.
        over: how batches are made, like `map`; see `on_ray`.
        heard: told after every step, or batch of a cluster, how many network calls it took, each counted once an image.

    Raises:
        Refused: images that are not finite.
    """
    here: Calls = heard if over is map else _unheard

    @torch.no_grad()
    def batch(at: slice) -> Made:
        own = list(seeds[at])
        began, calls = time.perf_counter(), 0
        for step in sampler.trajectory(own):
            x, calls = step.x, calls + step.calls
            here(step.calls * len(own))
        images = sampler.space.decode(x).cpu()
        seconds = time.perf_counter() - began
        if not bool(torch.isfinite(images).all()):
            raise Refused(f"{cell.name} made images that are not finite, first among seeds {own[0]}-{own[-1]}")
        pixels = to_uint8(images)
        features, logits = extractor.both(from_uint8(pixels))
        shown = pixels[: max(0, KEPT - at.start)]
        return Made(features, logits, shown, seconds / len(own), float(calls), sampler.tau)

    key = key_of(sampler, cell, seeds, extractor)
    before = 0 if over is map else kept(folder, key, len(seeds))
    for news in collected(folder, key, len(seeds), batch_size, batch, share, over=over):
        if isinstance(news, int) and over is not map:
            heard(sampler.calls * (news - before))
            before = news
        yield news


def _unheard(calls: int) -> None:
    """In a worker, from which nobody hears before the batch is done."""


def calls_left(
    samplers: Mapping[Cell, Sampler], seeds: Sequence[int], extractor: Extractor, folder: Path
) -> tuple[int, int]:
    """Network calls, each counted once an image, that these cells take altogether, and those that are still to be made.

    What an earlier evaluation left in the folder is not made again.
    """
    whole = left = 0
    for cell, sampler in samplers.items():
        there = kept(folder, key_of(sampler, cell, seeds, extractor), len(seeds))
        whole += sampler.calls * len(seeds)
        left += sampler.calls * (len(seeds) - there)
    return whole, left


def real(
    images: Images,
    index: npt.NDArray[np.int64],
    extractor: Extractor,
    *,
    batch_size: int,
    folder: Path,
    share: Share = ALONE,
    over: Over = map,
) -> Iterator[int | Made]:
    """Features of real images, by their places in the data; as `make`."""
    key = {"format": FORMAT, "data": images.report.sha256, "index": digest(index.tolist()),
           "extractor": stamp_of(extractor)}  # fmt: skip

    def read(at: slice) -> tuple[int, Pixels]:  # here: a worker elsewhere need not have the data
        return at.start, images.pixels[index[at]]

    def batch(said: tuple[int, Pixels]) -> Made:
        first, pixels = said
        return Made(*extractor.both(from_uint8(pixels)), pixels[: max(0, KEPT - first)])

    yield from collected(folder, key, len(index), batch_size, batch, share, over=over, item=read)


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
