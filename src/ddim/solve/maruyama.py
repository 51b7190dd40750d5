"""The reverse SDE by Euler and Maruyama, and Heun's step from a noisier time (EDM's churn)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Continuous, ddim_step
from ddim.refused import Refused
from ddim.solve.base import Solver, Step
from ddim.solve.heun import Heun

MOST_CHURN = math.sqrt(2.0) - 1.0


@dataclass(frozen=True)
class EulerMaruyama(Solver[None]):
    """dy = -d(rho^2) score + sqrt(d(rho^2)) dW backwards in y = x/signal, rho = noise/signal, by Euler and Maruyama.

    One SDE for all processes (arXiv 2011.13456, eq. 6), whose linear part is exact:
    y_s = y_t - (rho_t^2 - rho_s^2)/rho_t eps + sqrt(rho_t^2 - rho_s^2) z. The step to the clean image is its mean, x0
    (appendix G there). Where there is no signal, rho is infinite, and the step is DDPM's.
    """

    order: ClassVar[int] = 1

    @property
    def stochastic(self) -> bool:
        return True

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: None, z: Tensor | None) -> Step[None]:
        p, at_t, at_s = denoise(x, t), denoise.process.at(t), denoise.process.at(s)
        if at_s.noise == 0.0:
            return Step(p.x0, None, p, 1)
        if at_t.signal == 0.0:
            return Step(ddim_step(p, at_t, at_s, eta=1.0, z=z), None, p, 1)
        rho_t, rho_s = at_t.noise / at_t.signal, at_s.noise / at_s.signal
        mean = at_s.signal * p.x0 + at_s.noise * (rho_s / rho_t) * p.eps
        return Step(mean + at_s.signal * math.sqrt(rho_t**2 - rho_s**2) * z, None, p, 1)  # type: ignore[operator]


@dataclass(frozen=True)
class Churned(Solver[None]):
    """EDM's stochastic sampler (arXiv 2206.00364, algorithm 2): noise is added up to (1 + gamma) rho, then Heun's step.

    The paper's gamma is min(S_churn/N, sqrt(2) - 1) in N steps. Continuous processes alone have a time for every rho.

    Args:
        gamma: how much noisier, from 0 (Heun) to sqrt(2) - 1.
        low, high: S_tmin and S_tmax, the rho = noise/signal between which noise is added.
        inflate: S_noise, the standard deviation of what is added.

    Raises:
        Refused: gamma outside its range, ends that are none; a schedule of whole times.
    """

    gamma: float = MOST_CHURN
    low: float = 0.0
    high: float = math.inf
    inflate: float = 1.0
    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not 0.0 <= self.gamma <= MOST_CHURN:
            raise Refused(f"gamma must lie between 0 and sqrt(2) - 1, got {self.gamma}")
        if not 0.0 <= self.low < self.high or not 0.0 < self.inflate < math.inf:
            raise Refused(
                f"churn needs 0 <= low < high and inflate above 0, got {self.low}, {self.high}, {self.inflate}"
            )

    @property
    def stochastic(self) -> bool:
        return self.gamma > 0.0

    def suits(self, denoise: Denoiser) -> None:
        super().suits(denoise)
        if not isinstance(denoise.process, Continuous):
            raise Refused("churn goes to a time between two whole ones: it needs a continuous process, not a schedule")

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: None, z: Tensor | None) -> Step[None]:
        process = denoise.process
        assert isinstance(process, Continuous)  # `suits` sees to it
        at, last = process.at(t), process.at(process.T)
        if at.signal > 0.0 and self.gamma > 0.0 and self.low <= at.noise / at.signal <= self.high:
            rho = at.noise / at.signal
            most = last.noise / last.signal if last.signal > 0.0 else math.inf
            raised = min((1.0 + self.gamma) * rho, most)
            if raised > rho:
                t = process.T if raised == most else process.time_of(raised)
                up = process.at(t)
                added = self.inflate * up.signal * math.sqrt(raised**2 - rho**2)
                x = x * (up.signal / at.signal) + added * z  # type: ignore[operator]  # noise is there
        return Heun().step(denoise, x, t, s, None, None)

    def calls(self, tau: Sequence[Any]) -> int:
        return Heun().calls(tau)
