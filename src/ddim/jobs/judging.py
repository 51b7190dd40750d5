"""What candidates for a setting are judged by: the images they make, from the same seeds, beside real ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ddim.jobs.cluster import Over
from ddim.jobs.evaluate import Cell, Made, RealSets, Reference, Row, make, real
from ddim.jobs.tuning import FIRST_SEED, FIRST_UNSEEN
from ddim.metrics import Extractor
from ddim.model import Sampler


@dataclass(frozen=True, eq=False)
class Judge:
    """Measures the images of samplers beside one reference.

    Attributes:
        reference, floor: real images, and as many others as a candidate makes.
        seen, unseen: the seeds that are searched on, and those that the result is checked on; neither is one that
            people evaluate with.
    """

    reference: Reference
    floor: Row
    seen: Sequence[int]
    unseen: Sequence[int]
    classes: int | None
    work: dict[str, Any]

    @classmethod
    def of(
        cls, data: RealSets, look: Extractor, n: int, *, num_classes: int | None, batch_size: int, folder: Path,
        over: Over = map,
    ) -> Self:  # fmt: skip
        """With n images a candidate; the folder keeps what is measured, so that a search goes on where it stopped.

        Args:
            num_classes: the model's, whose images are asked for class seed modulo K.
            over: how batches are made, like `map`; see `on_ray`.
        """
        work: dict[str, Any] = {"extractor": look, "batch_size": batch_size, "folder": folder, "over": over}
        reference = Reference(_last(real(data.own, data.reference, **work)))
        floor = reference.row(_last(real(data.held, data.floor, **work)), None, None, "real, held out")
        known = num_classes if reference.classes == num_classes else None
        seen, unseen = range(FIRST_SEED, FIRST_SEED + n), range(FIRST_UNSEEN, FIRST_UNSEEN + n)
        return cls(reference, floor, seen, unseen, known, work)

    def row(self, sampler: Sampler, cell: Cell, seeds: Sequence[int]) -> Row:
        """The images that a sampler makes from these seeds, measured; or read back."""
        labels = None if self.classes is None else [seed % self.classes for seed in seeds]
        return self.reference.row(_last(make(sampler, cell, seeds, **self.work)), cell, labels)


def _last(steps: Iterator[int | Made]) -> Made:
    for value in steps:
        if isinstance(value, Made):
            return value
    raise RuntimeError("the job ended without a result")
