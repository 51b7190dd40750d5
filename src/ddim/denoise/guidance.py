"""Classifier-free guidance as a wrapper: a denoiser that asks twice and extrapolates.

Both answers belong to the same x_t, so any mix of them with weights that add up to 1 is a consistent pair
again; only `rescale` leaves that plane, and re-derives eps. A variance is the conditional answer's own: it is no
direction to go along, and the programs that learn one guide the mean alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim.denoise.conditions import NONE, Conditions
from ddim.denoise.protocol import Wrapper
from ddim.denoise.weights import Interval, acts, refuse_weight, weight_at
from ddim.process import Prediction, Time, level_at
from ddim.refused import Refused


@dataclass(frozen=True)
class Guided(Wrapper):
    """eps = eps(null) + weight (eps(label) - eps(null)), and x0 alike (Ho & Salimans, arXiv 2207.12598, eq. 6).

    That paper writes w for our weight - 1: weight 1 is the plain conditional network, 0 the unconditional one.
    One network call of 2B rows a step, which counts as two (B rows where guidance is off, one).

    Args:
        denoise: a conditional denoiser.
        weight: how far to go from the null answer towards the label's.
        null_label: what stands for "no condition": the class in place of the condition "label" (int64 (B,), or
            float (B, K) weights over classes); or, by name, for any per-image conditions: a class, or a tensor (*)
            for every image.
        rescale: phi of Lin et al. (arXiv 2305.08891, eq. 15-16), 0..1: how far x0's standard deviation over each
            image is pulled back to that of the conditional x0. Here it is x0 that is rescaled, whatever the
            network predicts, since over-exposure is a property of x0; eps is re-derived.
        interval: (low, high), guide only while low <= t <= high (arXiv 2404.07724); outside, weight 1.

    Raises:
        Refused: a weight that is not finite, or beyond 1000; rescale outside 0..1; an empty interval; a call without
            a label.
    """

    weight: float
    null_label: int | Mapping[str, int | Tensor]
    rescale: float = 0.0
    interval: Interval | None = None

    def __post_init__(self) -> None:
        refuse_weight(self.weight, self.interval)
        if not 0.0 <= self.rescale <= 1.0:
            raise Refused(f"rescale must lie in 0..1, got {self.rescale}")

    @property
    def one_law(self) -> bool:
        """No: the mix of two scores, noised, is not the mix of their noised laws."""
        return False

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        nulls = self.null_label if isinstance(self.null_label, Mapping) else {"label": self.null_label}
        if not set(nulls) <= set(conditions.per_image):
            raise Refused(f"guidance with weight {self.weight} needs a {', '.join(nulls)} for every image")
        weight = weight_at(self.weight, self.interval, t, x_t)
        if isinstance(weight, float) and weight == 1.0:
            return self.denoise(x_t, t, conditions)
        both = self.denoise(
            torch.cat([x_t, x_t]),
            torch.cat([t, t]) if isinstance(t, Tensor) else t,
            conditions.with_null(nulls),
        )
        given = Prediction(both.x0[: len(x_t)], both.eps[: len(x_t)])
        null = Prediction(both.x0[len(x_t) :], both.eps[len(x_t) :])
        mixed = Prediction(
            null.x0 + weight * (given.x0 - null.x0),
            null.eps + weight * (given.eps - null.eps),
            None if both.variance is None else both.variance[: len(x_t)],
        )
        return self._rescaled(mixed, given, t, x_t) if self.rescale else mixed

    def describe(self) -> dict[str, Any]:
        interval = None if self.interval is None else list(self.interval)
        return {**self.denoise.describe(), "guidance": self.weight, "rescale": self.rescale, "interval": interval}

    def calls_at(self, t: Time | Tensor) -> int:
        return self.denoise.calls_at(t) * (2 if acts(self.weight, self.interval, t) else 1)

    def _rescaled(self, mixed: Prediction, given: Prediction, t: Time | Tensor, x_t: Tensor) -> Prediction:
        if x_t[0].numel() < 2:
            raise Refused("rescale compares standard deviations, which items of one number have not; give rescale=0")
        shape = (-1, *([1] * (x_t.ndim - 1)))
        std = mixed.x0.flatten(1).std(1).clamp(min=torch.finfo(mixed.x0.dtype).tiny)
        factor = self.rescale * (given.x0.flatten(1).std(1) / std) + 1.0 - self.rescale
        at = level_at(self.process, t, x_t)
        noise = torch.as_tensor(at.noise).to(x_t)
        change = torch.where(noise > 0, (factor.view(shape) - 1.0) * mixed.x0, torch.zeros_like(mixed.x0))
        # signal x0 + noise eps must still be x_t; at t = 0 there is nothing to guide, x0 is x_t
        slope = torch.where(noise > 0, torch.as_tensor(at.signal).to(x_t) / noise, torch.zeros_like(noise))
        return mixed._replace(x0=mixed.x0 + change, eps=mixed.eps - slope * change)
