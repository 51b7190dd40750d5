"""A coupled two-step scheme that is its own exact inverse, at one network call a step, for every network.

Two neighbouring states are carried. From the pair (x_r, x_t) the next state is what DDIM makes of x_t, plus
what x_r is beside DDIM's move from x_t back to r; solved for x_r that is the same formula with 1/gamma, so the
way back is algebra and meets the same network inputs (BDIA, arXiv 2307.10829; gamma = 1 is the leapfrog).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Time, ddim_step
from ddim.refused import Refused
from ddim.solve.base import Solver, Step

GROWTH = 100.0
"""How much rounding may grow from one end of tau to the other. See `Coupled`."""


class Older(NamedTuple):
    """The state before the present one: its time and x there, (B, *)."""

    t: Time
    x: Tensor


@dataclass(frozen=True)
class Coupled(Solver[Older | None]):
    """x_s = ddim(x_t; t -> s) + g (x_r - ddim(x_t; t -> r)); g = gamma towards the image, 1/gamma towards noise.

    The difference in brackets is an error memory. With gamma = 1 (the leapfrog, BDIA's) nothing dies out: at 20
    steps it swings, and the latents of a network come out with half the standard deviation they should have.
    gamma above 1 damps it on the way to noise, where latents are made, and lets rounding grow by gamma^S on the
    way back, at most `GROWTH`. The order is 1 (2 at gamma = 1 on grids even in the angle).

    Args:
        gamma: above 0; see `gamma_for`.

    The carry is the state before the present one. A walk that begins without it takes a plain DDIM step first, which
    is not reversible.
    """

    gamma: float = 1.0
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.gamma > 0.0:
            raise Refused(f"gamma must be above 0, got {self.gamma}")

    def init(self) -> Older | None:
        return None

    def step(
        self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: Older | None, z: Tensor | None
    ) -> Step[Older | None]:
        at_t, at_s = denoise.process.at(t), denoise.process.at(s)
        p = denoise(x, t)
        x_s = ddim_step(p, at_t, at_s)
        if carry is not None:
            g = self.gamma if s < t else 1.0 / self.gamma
            x_s = x_s + g * (carry.x - ddim_step(p, at_t, denoise.process.at(carry.t)))
        return Step(x_s, Older(t, x), p, 1)


def gamma_for(steps: int, growth: float = GROWTH) -> float:
    """gamma with gamma^steps = growth: rounding grows by no more than that, whatever the number of steps."""
    return float(growth ** (1.0 / steps))
