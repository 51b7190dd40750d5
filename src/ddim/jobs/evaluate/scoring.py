"""From measured cells to rows of numbers, and to the plain answer: how many steps are enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddim.jobs.evaluate.cells import Cell
from ddim.jobs.evaluate.measured import Made
from ddim.metrics import Moments, diversity, estrangement, fidelity, frechet, frechet_bias, inception_score, kid
from ddim.pixels import from_uint8
from ddim.process import generator

SLACK = 0.05  # "within 5 % of the best"
NEIGHBOURS = 10_000  # precision and its relatives look at this many images of each set at most
RESAMPLES = 20


@dataclass(frozen=True)
class Row:
    """One line of the report. Numbers that do not apply are None.

    distance is the Frechet distance, distance_std its spread over bootstrap resamples of the images, bias what two
    sets of these sizes from one law would show. behind is the distance less that of the best row, behind_std its spread
    where both rows are resampled at the same seeds: what they have in common drops out. consistency and rms are against
    the deterministic cell of most calls, seed by seed: consistency in features (0 the same image, 1 an unrelated one),
    rms in pixels of [-1, 1].
    """

    solver: str
    eta: str
    spacing: str
    steps: int | None
    nfe: float | None
    seconds_per_image: float | None
    n: int
    distance: float
    distance_std: float | None
    bias: float
    kid: float
    kid_std: float
    inception_score: float | None
    precision: float
    recall: float
    density: float
    coverage: float
    diversity: float
    class_accuracy: float | None
    consistency: float | None = None
    rms: float | None = None
    behind: float | None = None
    behind_std: float | None = None
    tau: tuple[Any, ...] = ()
    resampled: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return self.solver if self.steps is None else f"{self.solver} eta={self.eta} {self.spacing} S={self.steps}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Reference:
    """The real images everything is compared with; moments are taken once."""

    def __init__(self, made: Made) -> None:
        self.features = made.features
        self.classes = None if made.logits is None else made.logits.shape[1]
        self.moments = Moments.of(made.features)

    def row(self, made: Made, cell: Cell | None, labels: Sequence[int] | None, name: str = "") -> Row:
        """Measure one set of images.

        Args:
            made: the set.
            cell: the row it belongs to; None for a set of real images, called `name`.
            labels: the classes that were asked for, to count how often the extractor agrees; None if it knows others.
        """
        own = Moments.of(made.features)
        k = kid(made.features, self.features)
        near = fidelity(self.features[:NEIGHBOURS][: max(len(made.features), 6)], made.features[:NEIGHBOURS])
        scores, resampled = made.logits, self._resampled(made.features)
        splits = min(10, max(1, len(made.features) // 50))
        return Row(
            solver=cell.label if cell else name, eta=cell.noise_name if cell else "", n=own.n,
            spacing=cell.spacing if cell else "", steps=cell.steps if cell else None,
            nfe=made.nfe if cell else None, seconds_per_image=made.seconds_per_image if cell else None,
            distance=frechet(own, self.moments), distance_std=_std(resampled),
            bias=frechet_bias(self.moments.covariance, own.n, self.moments.n), kid=k.mean, kid_std=k.std,
            inception_score=inception_score(scores, splits).mean if scores is not None else None,
            precision=near.precision, recall=near.recall, density=near.density, coverage=near.coverage,
            diversity=diversity(made.features[:NEIGHBOURS]),
            class_accuracy=_accuracy(scores, labels), tau=made.times, resampled=resampled,
        )  # fmt: skip

    def _resampled(self, features: Tensor) -> tuple[float, ...]:
        """The distance of resamples of the images, the same places for every set; not for long features (minutes)."""
        if features.shape[1] > 512:
            return ()
        values = []
        for i in range(RESAMPLES):
            index = generator(0, "bootstrap", i).integers(0, len(features), len(features))
            values.append(frechet(Moments.of(features[torch.from_numpy(index)]), self.moments))
        return tuple(values)


def _std(values: Sequence[float]) -> float | None:
    return float(torch.tensor(values, dtype=torch.float64).std()) if values else None


def _accuracy(logits: Tensor | None, labels: Sequence[int] | None) -> float | None:
    if logits is None or labels is None:
        return None
    return float((logits.argmax(1) == torch.tensor(labels)).double().mean())


def compared(rows: Mapping[Cell, Row], made: Mapping[Cell, Made]) -> list[Row]:
    """The rows, each set beside two of them, seed by seed.

    consistency and rms are against the deterministic cell of most calls, if there is one; behind is against the best.
    """
    best = min(rows.values(), key=lambda r: r.distance)
    still = [c for c in rows if c.eta == 0.0]
    target = made[max(still, key=lambda c: (rows[c].nfe or 0.0, c.solver == "ddim"))] if still else None
    out = []
    for cell, row in rows.items():
        if target is not None:
            apart = from_uint8(made[cell].pixels) - from_uint8(target.pixels)
            rms = float(apart.square().mean().sqrt())
            alike = bool((target.features == target.features[0]).all())  # a collapsed model: nothing to measure by
            same = None if alike else estrangement(made[cell].features, target.features)
            row = replace(row, consistency=same, rms=rms)
        behind, error = above(row, best)
        out.append(replace(row, behind=behind, behind_std=error))
    return out


def above(row: Row, other: Row) -> tuple[float, float | None]:
    """How far a row's distance is above another's of the same seeds, and the error of that: both are resampled at the
    same places, so that what they have in common drops out."""
    return row.distance - other.distance, _std([a - b for a, b in zip(row.resampled, other.resampled, strict=True)])


def answer(rows: Sequence[Row], name: str, floor: Row | None = None) -> list[str]:
    """The plain answer, in sentences: the fewest calls within 5 % of the best, over all rows and for plain DDIM.

    Where the errors of the differences are wider than that, it says so and names the fewest not told apart from it;
    and which rows it does not tell apart from real images (`floor`).
    """
    best = min(rows, key=lambda r: r.distance)
    lines = [_fewest(rows, best, name, "Over all rows")]
    alike = [r for r in rows if r is best or (r.behind or 0.0) <= 2.0 * (r.behind_std or 0.0)]
    fewest = min(alike, key=lambda r: (r.nfe or 0.0, r.distance))
    if fewest is not best and 2.0 * (fewest.behind_std or 0.0) > SLACK * best.distance:
        lines.append(
            f"With n = {best.n} the error of a difference exceeds 5 %: the fewest calls not told apart from the best "
            f"are {fewest.nfe:g}, {fewest.name}, {fewest.behind:.2g} +- {fewest.behind_std:.2g} behind it. "
            "A larger `n` would tell."
        )
    plain = [r for r in rows if r.solver == "ddim" and r.eta == "0" and r.spacing != "tuned"]
    if plain and len(plain) < len(rows):
        lines.append(_fewest(plain, min(plain, key=lambda r: r.distance), name, "With plain DDIM (eta = 0)"))
    return lines + ([] if floor is None else against_real(rows, floor))


def against_real(rows: Sequence[Row], floor: Row) -> list[str]:
    """Which rows this n does not tell apart from real images: their difference is within two standard errors of it.

    That says what was not seen, not that they are alike, so the farthest of them is named with its numbers.
    """
    error = floor.distance_std
    if error is None:
        return []
    alike = [r for r in rows if r.distance <= floor.distance + 2.0 * math.hypot(r.distance_std or 0.0, error)]
    if not alike:
        return []
    far = max(alike, key=lambda r: r.distance)
    spread = f" +- {far.distance_std:.2g}" if far.distance_std is not None else ""
    which = far.name if len(alike) == 1 else f"the farthest of them is {far.name}"
    return [
        f"{len(alike)} of {len(rows)} rows {'is' if len(alike) == 1 else 'are'} not told apart from {floor.n} real "
        f"images ({floor.distance:.4g} +- {error:.2g}) at this n: {which}, {far.distance:.4g}{spread}. "
        "A larger `n` would tell more."
    ]


def _fewest(rows: Sequence[Row], best: Row, name: str, where: str) -> str:
    enough = [r for r in rows if r.distance <= (1.0 + SLACK) * best.distance]
    pick = min(enough, key=lambda r: (r.nfe or 0.0, r.distance))
    error = f" +- {pick.distance_std:.2g}" if pick.distance_std is not None else ""
    text = (
        f"{where}, the fewest steps within 5 % of the best are {pick.steps} ({pick.nfe:g} network calls an image): "
        f"{pick.name}, {name} {pick.distance:.4g}{error}"
    )
    if pick is best:
        return f"{text}, which is the best."
    return f"{text}; the best is {best.name} at {best.distance:.4g} with {best.nfe:g} calls."
