"""One evaluation, from options to rows: which cells and real images, what is measured, what the numbers depend on."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddim.cli.options import reals
from ddim.data import Images
from ddim.files import VERSION, digest
from ddim.jobs import Cell, Made, Reference, Row, compared, make, real, split, stamp_of, table_of
from ddim.metrics import Extractor
from ddim.model import Model, Sampler
from ddim.refused import Refused


def cells_of(steps: Sequence[int], eta: str, solver: str, spacing: str, also: str, sigma_hat: bool) -> list[Cell]:
    """The rows that were asked for: a table, and those of --also.

    Raises:
        Refused: none, or an impossible one.
    """
    etas = reals(eta, "--eta")
    cells = table_of(steps, etas, words(solver), words(spacing), sigma_hat=sigma_hat) if steps else []
    for text in words(also):
        parts = text.split(":")
        if len(parts) != 4 or not parts[2].isdecimal():
            raise Refused(f"--also takes SOLVER:ETA:STEPS:SPACING, got {text!r}")
        noise = None if parts[1] == "hat" else reals(parts[1], "--also")[0]
        cell = Cell(parts[0], noise, int(parts[2]), parts[3])
        cell.method()
        cells.append(cell)
    if not cells:
        raise Refused("no rows: give --steps or --also")
    return list(dict.fromkeys(cells))


def words(text: str) -> list[str]:
    """ "a,b" as words."""
    return [w.strip() for w in text.split(",") if w.strip()]


@dataclass(frozen=True, eq=False)
class Real:
    """Real images: where the reference and the noise floor lie in them."""

    own: Images
    held: Images
    reference: Any
    floor: Any

    @classmethod
    def of(cls, own: Images, held: Images | None, n: int, reference: int, data: str) -> Real:
        """At most `reference` images of `own`, and n of `held`, or else of `own`, which the reference then has not.

        Raises:
            Refused: too few.
        """
        places, floor = split(own, 0 if held else n, reference)
        if len(places) < 10:
            left = f"{len(own)} images, of which {len(places)} are left for the reference"
            raise Refused(f"{data} has {left}: at least 10 are needed; lower `n` or give `held_out`")
        if held is not None:
            if len(held) < n:
                raise Refused(f"`held_out` has {len(held)} images, fewer than n = {n}")
            floor = split(held, n, 0)[1]
        return cls(own, held or own, places, floor)

    def stamp(self, n: int, data: str, held_out: str) -> dict[str, Any]:
        """What the report says of them."""
        return {
            "reference": f"{len(self.reference)} images of {data}", "reference sha256": self.own.report.sha256,
            "held out": f"{n} images of {held_out}", "held out sha256": self.held.report.sha256,
            "places hash": digest([self.reference.tolist(), self.floor.tolist()]),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Measured:
    """Rows in the order of the cells, the real images' row, and what each cell made."""

    rows: list[Row]
    floor: Row
    made: dict[Cell, Made]


def measured(
    samplers: Mapping[Cell, Sampler], seeds: Sequence[int], data: Real, look: Extractor,
    *, num_classes: int | None, batch_size: int, folder: Path, tell: Callable[[int, str], None],
) -> Measured:  # fmt: skip
    """Make and measure every cell, cheap rows first: an early picture. `tell` hears how many images are done."""
    work: dict[str, Any] = {"extractor": look, "batch_size": batch_size, "folder": folder}
    reference = Reference(_last(real(data.own, data.reference, **work)))
    floor = reference.row(_last(real(data.held, data.floor, **work)), None, None, "real, held out")
    made: dict[Cell, Made] = {}
    for i, cell in enumerate(sorted(samplers, key=lambda c: c.steps)):
        before = i * len(seeds)
        tell(before, cell.name)
        job = make(samplers[cell], cell, seeds, **work)
        made[cell] = _last(job, lambda done, before=before, cell=cell: tell(before + done, cell.name))  # type: ignore[misc]  # mypy has no types for defaults
        tell(before + len(seeds), cell.name)
    known = reference.classes is not None and reference.classes == num_classes
    labels = [s % reference.classes for s in seeds] if known and reference.classes else None
    rows = compared({cell: reference.row(made[cell], cell, labels) for cell in samplers}, made)
    return Measured(rows, floor, {cell: made[cell] for cell in samplers})


def stamp_of_run(model: Model, sampler: Sampler, look: Extractor) -> dict[str, Any]:
    """How and where the images were made and looked at."""
    return {
        "extractor": stamp_of(look), "image size": list(model.shape), "rounding": "8 bits before features",
        "guidance": sampler.recipe["guidance"], "clip": sampler.recipe["clip"],
        "precision": sampler.recipe["precision"],
    }  # fmt: skip


def machine(model: Model) -> dict[str, Any]:
    """Where it ran, and the command."""
    return {
        "device": model.device.type, "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "ddim": VERSION, "torch": torch.__version__, "command": " ".join(["ddim", *sys.argv[1:]]),
    }  # fmt: skip


def _last(steps: Iterator[int | Made], tell: Callable[[int], None] = lambda done: None) -> Made:
    """Drive a job to its end; what it yields last is the result."""
    for value in steps:
        if isinstance(value, Made):
            return value
        tell(value)
    raise RuntimeError("the job ended without a result")
