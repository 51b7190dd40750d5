"""Heun's second-order step: the slope of DDIM's flow averaged over both ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import ddim_step
from ddim.solve.base import Solver, Step


@dataclass(frozen=True)
class Heun(Solver[None]):
    """Heun's second-order step (EDM, arXiv 2206.00364, algorithm 1).

    The flow is d(x/signal)/d(noise/signal) = eps (DDIM eq. 14), and, read from the other end,
    d(x/noise)/d(signal/noise) = x0. The first is used where signal >= noise; the second where noise is the larger, for
    there noise/signal runs away (to 2e4 on the cosine schedule, to infinity at zero terminal SNR) and a straight line
    in it fits nothing.
    Two calls a step; one (an Euler step, that is DDIM) on the step to the clean image, which networks never saw.
    """

    order: ClassVar[int] = 2

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: None, z: Tensor | None) -> Step[None]:
        at_t, at_s = denoise.process.at(t), denoise.process.at(s)
        p = denoise(x, t)
        x_s = ddim_step(p, at_t, at_s)
        if at_s.noise == 0.0:
            return Step(x_s, None, p, 1)
        q = denoise(x_s, s)
        if at_t.signal < at_t.noise:
            x_s = x_s + (at_s.signal - at_s.noise * at_t.signal / at_t.noise) * (q.x0 - p.x0) / 2
        else:
            x_s = x_s + (at_s.noise - at_s.signal * at_t.noise / at_t.signal) * (q.eps - p.eps) / 2
        return Step(x_s, None, p, 2)

    def calls(self, tau: Sequence[Any]) -> int:
        return sum(1 if s == 0 else 2 for s in tau[1:])
