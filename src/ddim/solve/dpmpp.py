"""DPM-Solver++ (Lu et al., arXiv 2211.01095): multistep in the half-log-SNR lambda, on predictions of x0.

Its exact solution x_s = (noise_s/noise_t) x_t + signal_s int_0^h e^(u-h) x0(u) du, with h = lambda_s - lambda_t,
is the DDIM step when x0 is held constant; so every method here is the DDIM step plus what past predictions
say about the slope and the curvature of x0. Where lambda is infinite (s = 0, signal = 0) they say nothing and
the step is DDIM's, which at s = 0 returns x0 itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Process, ddim_step, half_log_snr
from ddim.refused import Refused
from ddim.solve.base import Past, Solver, Step


def finite(t: Any, process: Process) -> bool:
    """Whether lambda_t is a number, so that a prediction at t can serve later steps."""
    return math.isfinite(half_log_snr(process.at(t)))


@dataclass(frozen=True)
class DPMSolverPP(Solver[Past]):
    """DPM-Solver++ with 1 (DDIM), 2 ("2M") or 3 ("3M") predictions; one network call a step.

    A step uses as many predictions as there are, up to `order`: the first is DDIM's, the second 2M's. The
    order is that of the steps that follow. The step to s = 0 is first order, as in every program.

    Args:
        order: 1, 2 or 3.
        stochastic: the SDE variant of order 1 or 2. Its first-order step is `DDIM(eta=1)`: the ancestral noise
            std = noise_s sqrt(1 - e^(-2h)). Its order is of the drift; the noise of each step is exact.
        published: for order 3, the coefficients as published and as in diffusers and k-diffusion. They weigh the
            curvature by half of what the integral says (int e^(u-h) u^2 du against int e^(u-h) u^2/2 du with the
            divided difference, which is half of the second derivative) and are of order 2 (tests/laws/test_order).

    Raises:
        Refused: another order; stochastic with order 3; published with an order that is not 3.
    """

    order: int = 2
    stochastic: bool = False
    published: bool = False

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 3):
            raise Refused(f"DPM-Solver++ has order 1, 2 or 3, got {self.order}")
        if self.stochastic and self.order == 3:
            raise Refused("the stochastic DPM-Solver++ has order 1 or 2, got 3")
        if self.published and self.order != 3:
            raise Refused(f"'published' chooses between coefficients of order 3; the order is {self.order}")

    def init(self) -> Past:
        return ()

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: Past, z: Tensor | None) -> Step[Past]:
        at_t, at_s = denoise.process.at(t), denoise.process.at(s)
        p = denoise(x, t)
        x_s = ddim_step(p, at_t, at_s, eta=1.0 if self.stochastic else 0.0, z=z)
        if not finite(t, denoise.process):
            return Step(x_s, (), p, 1)
        if finite(s, denoise.process) and carry:
            x_s = x_s + at_s.signal * self._slopes(denoise.process, p.x0, t, s, carry)
        return Step(x_s, ((t, p.x0), *carry)[: max(self.order - 1, 0)], p, 1)

    def _slopes(self, process: Process, x0: Tensor, t: Any, s: Any, past: Past) -> Tensor:
        """int_0^h e^(u-h) (x0(u) - x0(0)) du of the polynomial through the predictions."""
        here = half_log_snr(process.at(t))
        h = half_log_snr(process.at(s)) - here
        (t1, m1), h1 = past[0], here - half_log_snr(process.at(past[0][0]))
        slope = (x0 - m1) * (h / h1)  # h times the divided difference, "D1_0"
        if len(past) == 1:
            rate = 2.0 * h if self.stochastic else h
            return slope * (-0.5 * math.expm1(-rate))  # the "midpoint" form of 2M
        t2, m2 = past[1]
        h2 = half_log_snr(process.at(t1)) - half_log_snr(process.at(t2))
        older = (m1 - m2) * (h / h2)
        bend = (slope - older) * (h / (h1 + h2))  # h^2 times the second divided difference, "D2"
        phi2 = 1.0 + math.expm1(-h) / h  # int e^(u-h) u/h du
        phi3 = 1.0 - 2.0 * phi2 / h  # int e^(u-h) (u/h)^2 du
        return phi2 * (slope + (h1 / h) * bend) + (0.5 if self.published else 1.0) * phi3 * bend
