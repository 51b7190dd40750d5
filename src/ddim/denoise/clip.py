"""Wrappers that keep x0 within bounds and re-derive eps, so that the pair stays consistent. They have no inverse."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim.denoise.conditions import NONE, Conditions
from ddim.denoise.protocol import Wrapper
from ddim.process import Prediction, Process, Time, rederive


@dataclass(frozen=True)
class Clip(Wrapper):
    """Clamp x0 into [low, high] and re-derive eps."""

    low: float = -1.0
    high: float = 1.0

    @property
    def invertible(self) -> bool:
        return False

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        p = self.denoise(x_t, t, conditions)
        return _replace_x0(p, p.x0.clamp(self.low, self.high), x_t, t, self.process)

    def describe(self) -> dict[str, Any]:
        return {**self.denoise.describe(), "clip": [self.low, self.high]}


@dataclass(frozen=True)
class DynamicThreshold(Wrapper):
    """Scale each image's x0 down when its `quantile` of |x0| exceeds 1 (Imagen, arXiv 2205.11487, section 2.3).

    x0 <- clamp(x0, -q, q) / q with q = clamp(quantile of |x0|, 1, maximum); eps is re-derived.
    """

    quantile: float = 0.995
    maximum: float = float("inf")

    @property
    def invertible(self) -> bool:
        return False

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        p = self.denoise(x_t, t, conditions)
        q = torch.quantile(p.x0.abs().reshape(len(p.x0), -1).float(), self.quantile, dim=1).clamp(1.0, self.maximum)
        q = q.to(p.x0.dtype).view(-1, *([1] * (p.x0.ndim - 1)))
        return _replace_x0(p, p.x0.clamp(-q, q) / q, x_t, t, self.process)

    def describe(self) -> dict[str, Any]:
        return {**self.denoise.describe(), "threshold": [self.quantile, str(self.maximum)]}


def _replace_x0(p: Prediction, x0: Tensor, x_t: Tensor, t: Time | Tensor, process: Process) -> Prediction:
    """The pair with this x0; at t = 0 (nothing to re-derive: x_t is the image) the pair is left as it is."""
    if not isinstance(t, Tensor):
        return p._replace(x0=x0, eps=rederive(x0, x_t, process.at(t)).eps) if t > 0 else p
    clean = (t == 0).to(x_t.device).view(-1, *([1] * (x_t.ndim - 1)))
    asked = torch.where(t == 0, torch.full_like(t, process.first), t)
    new = rederive(x0, x_t, process.at_batch(asked, x_t))
    return p._replace(x0=torch.where(clean, p.x0, new.x0), eps=torch.where(clean, p.eps, new.eps))
