"""UniPC (Zhao et al., arXiv 2302.04867): a predictor in lambda whose step is corrected by the next call.

The network is called once a step. Its answer at (x_t, t) first corrects x_t itself, as a node at the far end
of the step that led there, and then predicts x_s. Both are the DDIM step plus a weighted sum of differences
between predictions of x0, as in `DPMSolverPP`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Prediction, Process, ddim_step, half_log_snr, rederive
from ddim.refused import Refused
from ddim.solve.base import Past, Solver, Step
from ddim.solve.dpmpp import finite


class Reached(NamedTuple):
    """What survives a UniPC step: the pair it started from (at corrected x), earlier x0's, and their times."""

    pair: Prediction
    past: Past  # past[0] is (t, pair.x0)


@dataclass(frozen=True)
class UniPC(Solver[Reached | None]):
    """UniPC-p: the UniP-p predictor with the UniC-p corrector; one network call a step, order p + 1.

    The first step uses p = 1, the second at most 2. At s = 0 the step is DDIM's, which returns x0.

    Args:
        p: 1, 2 or 3; 2 is what the paper advises for guided sampling, 3 without guidance.
        form: B(h) of the paper: "B1" is h, "B2" is e^h - 1.

    Raises:
        Refused: another p or form.
    """

    p: int = 2
    form: Literal["B1", "B2"] = "B2"

    def __post_init__(self) -> None:
        if self.p not in (1, 2, 3):
            raise Refused(f"UniPC-p has p = 1, 2 or 3, got {self.p}")
        if self.form not in ("B1", "B2"):
            raise Refused(f"UniPC's form is 'B1' or 'B2', got {self.form!r}")

    @property
    def order(self) -> int:
        return self.p + 1

    def init(self) -> Reached | None:
        return None

    def step(
        self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: Reached | None, z: Tensor | None
    ) -> Step[Reached | None]:
        process = denoise.process
        at_t, at_s = process.at(t), process.at(s)
        pair = said = denoise(x, t)
        if not finite(t, process):
            return Step(ddim_step(pair, at_t, at_s), None, said, 1)
        if carry is not None:
            corrected = self._move(process, carry.pair, t, carry.past, pair.x0)
            pair = rederive(pair.x0, corrected, at_t)  # the prediction stays that of the uncorrected x
        past: Past = ((t, pair.x0), *(carry.past if carry is not None else ()))[: self.p]
        x_s = self._move(process, pair, s, past) if finite(s, process) else ddim_step(pair, at_t, at_s)
        return Step(x_s, Reached(pair, past), said, 1)

    def _move(self, process: Process, pair: Prediction, s: Any, past: Past, end: Tensor | None = None) -> Tensor:
        """From t = past[0] to s: UniP with the past alone, UniC with x0 at s, `end`, as well (paper, eq. 3 and 9)."""
        t, m0 = past[0]
        here = half_log_snr(process.at(t))
        h = half_log_snr(process.at(s)) - here
        places = [(half_log_snr(process.at(q)) - here) / h for q, _ in past[1:]]
        values = [m for _, m in past[1:]]
        if end is not None:
            places, values = [*places, 1.0], [*values, end]
        x_s = ddim_step(pair, process.at(t), process.at(s))
        scale = process.at(s).signal * (h if self.form == "B1" else -math.expm1(-h))
        for r, value, rho in zip(places, values, self._weights(places, h, end is not None), strict=True):
            x_s = x_s + (scale * rho / r) * (value - m0)
        return x_s

    def _weights(self, places: list[float], h: float, corrects: bool) -> list[float]:
        """rho with sum_k rho_k r_k^(n-1) = n! phi_(n+1)(-h) (-h) / B(h), n = 1..len(places) (paper, appendix E).

        A single weight is 1/2, the paper's simplification: UniP-2 and UniC-1.
        """
        if len(places) <= 1:
            return [0.5] * len(places)
        hh = -h
        scale = hh if self.form == "B1" else math.expm1(hh)
        phi, factorial, rows, goals = math.expm1(hh) / hh - 1.0, 1.0, [], []
        for n in range(1, len(places) + 1):
            rows.append([r ** (n - 1) for r in places])
            goals.append(phi * factorial / scale)
            factorial *= n + 1
            phi = phi / hh - 1.0 / factorial
        return [float(w) for w in np.linalg.solve(np.array(rows), np.array(goals))]
