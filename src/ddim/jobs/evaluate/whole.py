"""One evaluation from a sampler to rows: the rows of words, the real images, every cell in turn, and the stamp."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim.data import Images
from ddim.files import Crew, digest
from ddim.jobs.cluster import Over
from ddim.jobs.evaluate.cells import Cell, make, real, split
from ddim.jobs.evaluate.measured import Made
from ddim.jobs.evaluate.scoring import Reference, Row, against_real, compared
from ddim.jobs.job import ALONE, Share
from ddim.metrics import Extractor
from ddim.model import Model, Sampler
from ddim.refused import Refused

USUAL, LEAST = 5000, 10  # images of a row
Heard = Callable[[int, str], None]
"""Hears how much is done (network calls, or images), and of what."""


def cell_named(text: str) -> Cell:
    """The row "SOLVER:ETA:STEPS:SPACING"; eta "hat" is sigma-hat, "learned" the network's own variance.

    Raises:
        Refused: it is not written so, or impossible.
    """
    try:
        solver, eta, steps, spacing = text.split(":")
        noise = None if eta == "hat" else eta if eta == "learned" else float(eta)
        cell = Cell(solver, noise, int(steps), spacing)
    except ValueError:
        raise Refused(f"a row is written SOLVER:ETA:STEPS:SPACING, got {text!r}") from None
    cell.method()
    return cell


def n_allowed(own: Images, held: Images | None) -> int:
    """Images a row where nobody said: `USUAL`, or all of a smaller test set, or half of smaller data.

    Raises:
        Refused: fewer than `LEAST` of them.
    """
    n = min(USUAL, len(own) // 2 if held is None else len(held))
    if n < LEAST:
        need = f"{2 * LEAST} images, half of them for the noise floor" if held is None else f"{LEAST} of `held_out`"
        raise Refused(f"{(held or own).report.source} has {len(held or own)} images: an evaluation needs {need}")
    return n


def classes_known(look: Extractor, model: Model) -> int | None:
    """The model's number of classes, where the extractor's may be the same ones: None if their names say otherwise."""
    names = model.checkpoint.labels
    return model.num_classes if not (names and look.class_names) or tuple(names) == look.class_names else None


@dataclass(frozen=True, eq=False)
class RealSets:
    """Real images: where the reference and the noise floor lie in them."""

    own: Images
    held: Images
    reference: Any
    floor: Any

    @classmethod
    def of(cls, own: Images, held: Images | None, n: int, reference: int) -> RealSets:
        """At most `reference` images of `own`, and n of `held`, or else of `own`, which the reference then has not.

        Raises:
            Refused: too few.
        """
        places, floor = split(own, 0 if held else n, reference)
        if len(places) < LEAST:
            left = f"{len(own)} images, of which {len(places)} are left for the reference"
            raise Refused(f"{own.report.source} has {left}: at least {LEAST} are needed; lower `n` or give `held_out`")
        if held is not None:
            if len(held) < n:
                raise Refused(f"`held_out` has {len(held)} images, fewer than `n` = {n}")
            floor = split(held, n, 0)[1]
        return cls(own, held or own, places, floor)

    def stamp(self, data: str, held_out: str) -> dict[str, Any]:
        """What the report says of them."""
        return {
            "reference": f"{len(self.reference)} images of {data}", "reference sha256": self.own.report.sha256,
            "held out": f"{len(self.floor)} images of {held_out}", "held out sha256": self.held.report.sha256,
            "places hash": digest([self.reference.tolist(), self.floor.tolist()]),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class Measured:
    """Rows in the order of the cells, the real images' row, and what each cell made."""

    rows: list[Row]
    floor: Row
    made: dict[Cell, Made]


def measure_cells(
    samplers: Mapping[Cell, Sampler], seeds: Sequence[int], data: RealSets, look: Extractor,
    *, folder: Path, num_classes: int | None = None, batch_size: int = 64, tell: Heard = lambda done, name: None,
) -> Measured:  # fmt: skip
    """Make and measure every cell, cheap rows first: an early picture.

    Args:
        samplers: of each cell: `model.sampler(**cell.how())`.
        folder: keeps what is measured; another call with the same folder goes on there.
        num_classes: the model's, whose images are asked for class seed modulo K.
        tell: hears how many network calls were made, each counted once an image, and the row's name.
    """
    found = share_cells(
        samplers, seeds, data, look, folder=folder, num_classes=num_classes, batch_size=batch_size, tell=tell
    )
    if found is None:
        raise RuntimeError("one process alone waits for no other")
    return found


def share_cells(
    samplers: Mapping[Cell, Sampler], seeds: Sequence[int], data: RealSets, look: Extractor,
    *, folder: Path, num_classes: int | None, batch_size: int, tell: Heard, share: Share = ALONE,
    crew: Crew | None = None, over: Over = map,
) -> Measured | None:  # fmt: skip
    """`measure_cells` by several processes: the one that finds all batches made measures, the others get None.

    The last one at work (of `crew`) makes what those left undone that died. `over` is how batches are made, like `map`.
    """
    work: dict[str, Any] = {"extractor": look, "batch_size": batch_size, "folder": folder, "over": over}
    cells = sorted(samplers, key=lambda c: c.steps)

    done = 0

    def everything(share: Share) -> list[Made | None]:
        work["share"] = share
        sets = [_end(real(data.own, data.reference, **work)), _end(real(data.held, data.floor, **work))]
        for cell in cells:

            def heard(calls: int, name: str = cell.name) -> None:
                nonlocal done
                done += calls
                tell(done, name)

            sets.append(_end(make(samplers[cell], cell, seeds, **work, heard=heard)))
        return sets

    sets = everything(share)
    if any(own is None for own in sets):  # others were still at work then; what they finished since is read
        sets = everything(ALONE if crew is not None and crew.last() else share)
    whole = [own for own in sets if own is not None]
    if len(whole) < len(sets):
        return None
    reference = Reference(whole[0])
    floor = reference.row(whole[1], None, None, "real, held out")
    made = dict(zip(cells, whole[2:], strict=True))
    known = reference.classes is not None and reference.classes == num_classes
    labels = [s % reference.classes for s in seeds] if known and reference.classes else None
    rows = compared({cell: reference.row(made[cell], cell, labels) for cell in samplers}, made)
    return Measured(rows, floor, {cell: made[cell] for cell in samplers})


def measure_images(
    images: Images,
    data: RealSets,
    look: Extractor,
    *,
    folder: Path,
    batch_size: int = 64,
    tell: Heard = lambda done, name: None,
) -> tuple[Row, Row]:
    """The rows of images that exist already and of as many real ones, both beside the reference.

    Args:
        images: as many of them as the floor has are measured, chosen at random.
        tell: hears how many images of all sets are done.

    Raises:
        Refused: fewer images than the floor has.
    """
    work: dict[str, Any] = {"extractor": look, "batch_size": batch_size, "folder": folder}
    own, done = split(images, len(data.floor), 0)[1], 0
    found = []
    for which, places in ((data.own, data.reference), (data.held, data.floor), (images, own)):
        found.append(_last(real(which, places, **work), tell, done))
        done += len(places)
    reference = Reference(found[0])
    floor = reference.row(found[1], None, None, "real, held out")
    return reference.row(found[2], None, None, images.report.source), floor


def judged(row: Row, floor: Row, name: str) -> str:
    """Whether the distance tells these images from real ones, in a sentence; by the rule of `answer`."""
    found = f"{name} {row.distance:.4g}{_error(row)}, and {floor.distance:.4g}{_error(floor)} of {floor.n} real images"
    if floor.distance_std is None:
        return f"{found}; features this long have no error to tell them apart by."
    if against_real([row], floor):
        return f"{found}: not told apart from real images at this n. A larger `n` would tell more."
    return f"{found}: told apart from real images."


def _error(row: Row) -> str:
    return "" if row.distance_std is None else f" +- {row.distance_std:.2g}"


def _silent(done: int, name: str = "") -> None:
    """Nobody listens."""


def _end(steps: Iterator[int | Made], tell: Heard = _silent, before: int = 0, name: str = "") -> Made | None:
    """Drive a job to its end; what it yields last is the result, None where other processes have to do their part."""
    for value in steps:
        if isinstance(value, Made):
            tell(before + len(value), name)
            return value
        tell(before + value, name)
    return None


def _last(steps: Iterator[int | Made], tell: Heard = _silent, before: int = 0) -> Made:
    """The result of a job that is nobody else's."""
    found = _end(steps, tell, before)
    if found is None:
        raise RuntimeError("the job ended without a result")
    return found
