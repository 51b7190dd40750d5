"""From measured cells to rows of numbers, and to the plain answer: how many steps are enough."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ddim.evaluate import Cell, Made
from ddim.images import from_uint8
from ddim.metrics import (
    Moments,
    consistency,
    diversity,
    fidelity,
    frechet,
    frechet_bias,
    inception_score,
    kid,
)  # fmt: skip
from ddim.noise import generator

SLACK = 0.05  # "within 5 % of the best"
NEIGHBOURS = 10_000  # precision and its relatives look at this many images of each set at most
RESAMPLES = 10


@dataclass(frozen=True)
class Row:
    """One line of the report. Numbers that do not apply are None.

    distance is the Frechet distance, distance_std its spread over bootstrap resamples of the images, bias what two
    sets of these sizes from one law would show. consistency and rms compare with the deterministic cell of most
    calls, seed by seed: consistency in features (0 the same image, 1 an unrelated one), rms in pixels of [-1, 1].
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
    tau: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return self.solver if self.steps is None else f"{self.solver} eta={self.eta} {self.spacing} S={self.steps}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Reference:
    """The real images everything is compared with; moments are taken once."""

    def __init__(self, made: Made) -> None:
        self.features = made.features
        self.moments = Moments.of(made.features)

    def row(self, made: Made, cell: Cell | None, labels: Sequence[int] | None, name: str = "") -> Row:
        """Measure one set of images.

        Args:
            made: the set.
            cell: the row it belongs to; None for a set of real images, called `name`.
            labels: the classes that were asked for, to count how often the extractor agrees.
        """
        own = Moments.of(made.features)
        k = kid(made.features, self.features)
        near = fidelity(self.features[:NEIGHBOURS][: max(len(made.features), 6)], made.features[:NEIGHBOURS])
        scores = made.logits
        splits = min(10, max(1, len(made.features) // 50))
        return Row(
            solver=cell.solver if cell else name, eta=cell.noise_name if cell else "", n=own.n,
            spacing=cell.spacing if cell else "", steps=cell.steps if cell else None,
            nfe=made.nfe if cell else None, seconds_per_image=made.seconds_per_image if cell else None,
            distance=frechet(own, self.moments), distance_std=self._spread(made.features),
            bias=frechet_bias(self.moments.covariance, own.n, self.moments.n), kid=k.mean, kid_std=k.std,
            inception_score=inception_score(scores, splits).mean if scores is not None else None,
            precision=near.precision, recall=near.recall, density=near.density, coverage=near.coverage,
            diversity=diversity(made.features[:NEIGHBOURS]),
            class_accuracy=_accuracy(scores, labels), tau=made.times,
        )  # fmt: skip

    def _spread(self, features: Tensor) -> float | None:
        """Standard deviation of the distance over resamples of the images; not for long features (minutes)."""
        if features.shape[1] > 512:
            return None
        values = []
        for i in range(RESAMPLES):
            index = generator(0, "bootstrap", i).integers(0, len(features), len(features))
            values.append(frechet(Moments.of(features[torch.from_numpy(index)]), self.moments))
        return float(torch.tensor(values, dtype=torch.float64).std())


def _accuracy(logits: Tensor | None, labels: Sequence[int] | None) -> float | None:
    if logits is None or labels is None or max(labels) >= logits.shape[1]:
        return None
    return float((logits.argmax(1) == torch.tensor(labels)).double().mean())


def compared(rows: Mapping[Cell, Row], made: Mapping[Cell, Made]) -> list[Row]:
    """The rows with consistency and rms filled in, against the deterministic cell of most calls, if there is one."""
    still = [c for c in rows if c.eta == 0.0]
    if not still:
        return list(rows.values())
    target = made[max(still, key=lambda c: (rows[c].nfe or 0.0, c.solver == "ddim"))]
    out = []
    for cell, row in rows.items():
        own = made[cell]
        apart = from_uint8(own.pixels) - from_uint8(target.pixels)
        same = {"consistency": consistency(own.features, target.features), "rms": float(apart.square().mean().sqrt())}
        out.append(Row(**{**_shallow(row), **same}))
    return out


def _shallow(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}


def answer(rows: Sequence[Row], name: str) -> list[str]:
    """The plain answer, in sentences: the fewest calls within 5 % of the best, over all rows and for plain DDIM.

    Where the distances' own errors are wider than that, it says so and names the fewest that they cannot tell apart.
    """
    best = min(rows, key=lambda r: r.distance)
    lines = [_fewest(rows, best, name, "Over all rows")]
    alike = [
        r for r in rows if r.distance - best.distance <= 2.0 * math.hypot(r.distance_std or 0, best.distance_std or 0)
    ]
    fewest = min(alike, key=lambda r: (r.nfe or 0.0, r.distance))
    if best.distance_std is not None and 2.0 * best.distance_std > SLACK * best.distance and fewest is not best:
        lines.append(
            f"With n = {best.n} the error of {name} exceeds 5 %: the fewest calls it cannot tell from the best are "
            f"{fewest.nfe:g}, {fewest.name} at {fewest.distance:.4g}. A larger --n would tell."
        )
    plain = [r for r in rows if r.solver == "ddim" and r.eta == "0" and r.spacing != "tuned"]
    if plain and len(plain) < len(rows):
        lines.append(_fewest(plain, min(plain, key=lambda r: r.distance), name, "With plain DDIM (eta = 0)"))
    return lines


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
