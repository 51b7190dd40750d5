"""A denoiser with its conditions filled in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from ddim.denoise.conditions import NONE, Conditions
from ddim.denoise.protocol import Denoiser, Wrapper
from ddim.process import Prediction, Time


@dataclass(frozen=True)
class Bound(Wrapper):
    """The same with these conditions at every call; those of a call come on top."""

    conditions: Conditions = NONE

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        return self.denoise(x_t, t, self.conditions | conditions if conditions else self.conditions)

    def describe(self) -> dict[str, Any]:
        return {**self.conditions.as_json(), **self.denoise.describe()}

    def rows(self, index: Tensor) -> Self:
        return type(self)(self.denoise.rows(index), self.conditions.rows(index))


def bound(denoise: Denoiser, conditions: Conditions) -> Denoiser:
    """The denoiser under these conditions; itself where there are none."""
    return Bound(denoise, conditions) if conditions else denoise
