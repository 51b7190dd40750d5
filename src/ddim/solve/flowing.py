"""The flow itself, followed to an error rather than for a number of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Prediction, as_rows
from ddim.refused import Refused
from ddim.solve.adaptive import integrated
from ddim.solve.base import Solver, Step
from ddim.solve.field import Field, angle


@dataclass(frozen=True)
class Adaptive(Solver[None]):
    """The flow d(x/signal)/d(noise/signal) = eps from t to s, by Dormand and Prince's pair 5(4) with error control.

    Every image has steps of its own, as many as it takes: one pair of times, (T, 0), is a whole sample, and the way up
    is as good. See `Field` for the clock, and for what holds below the cleanest time and between whole ones.

    Args:
        tolerance: largest error of a step, root mean square over an image in units of sqrt(signal^2 + noise^2).
    """

    tolerance: float = 1e-5
    order: ClassVar[int] = 5

    def __post_init__(self) -> None:
        if not 0.0 < self.tolerance < 1.0:
            raise Refused(f"`tolerance` must lie between 0 and 1, got {self.tolerance}")

    def calls(self, tau: Sequence[Any]) -> int:
        """The least there can be; each step says what it took."""
        return 7 * (len(tau) - 1)

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: None, z: Tensor | None) -> Step[None]:
        field = Field(denoise, tuple(x.shape[1:]))
        at_t, at_s = denoise.process.at(t), denoise.process.at(s)
        way = 1.0 if angle(at_s) > angle(at_t) else -1.0

        def slope(u: Tensor, clock: Tensor, rows: Tensor) -> Tensor:
            return way * field.slope(u, way * clock, rows)

        def size(error: Tensor) -> Tensor:
            return error.square().mean(1).sqrt()

        u = as_rows(x.double()) / math.hypot(*at_t)
        end, evaluations = integrated(slope, u, way * angle(at_t), way * angle(at_s), self.tolerance, size)
        first = field.slope(u, u.new_full((len(u),), phi := angle(at_t)), torch.arange(len(u), device=u.device))
        found = (math.cos(phi) * u - math.sin(phi) * first, math.sin(phi) * u + math.cos(phi) * first)
        pair = Prediction(*(part.view_as(x).to(x.dtype) for part in found))
        calls = (int(evaluations.max()) + 1) * field.calls if len(u) else 0
        return Step((end * math.hypot(*at_s)).view_as(x).to(x.dtype), None, pair, calls)
