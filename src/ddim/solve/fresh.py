"""Sampling in several calls with fresh noise at each: how consistency students are walked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import ddim_step
from ddim.solve.base import Solver, Step


@dataclass(frozen=True)
class Fresh(Solver[None]):
    """x_s = a_s x0 + b_s z: the predicted image under new noise (arXiv 2303.01469, algorithm 1).

    It is the member of the DDIM family (eq. 12) with the largest std, b_s, which keeps nothing of the predicted eps.
    """

    order: ClassVar[int] = 1

    @property
    def stochastic(self) -> bool:
        return True

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: None, z: Tensor | None) -> Step[None]:
        p, at_s = denoise(x, t), denoise.process.at(s)
        return Step(ddim_step(p, denoise.process.at(t), at_s, std=at_s.noise, z=z), None, p, 1)
