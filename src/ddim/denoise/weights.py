"""The weight of a guidance: one finite number, which may hold only while t lies within an interval."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ddim.process import Process, Time
from ddim.refused import Refused

Interval = tuple[Time, Time]
"""(low, high): guide only while low <= t <= high (arXiv 2404.07724); outside, weight 1."""


MOST = 1000.0  # beyond, the difference of two answers is the rounding of both


def refuse_weight(weight: Any, interval: Interval | None) -> None:
    """What is no weight, and an interval without any time in it.

    Raises:
        Refused: shows them.
    """
    if getattr(weight, "ndim", 0) or isinstance(weight, list | tuple):
        raise Refused(f"`guidance` is one number for all images, got {weight}")
    if not math.isfinite(weight):
        raise Refused(f"the guidance weight must be finite, got {weight}; 1 is the plain network")
    if abs(weight) > MOST:
        raise Refused(f"the guidance weight is {MOST:g} at most, got {weight:g}; 1 is the plain network")
    if interval is not None and interval[0] > interval[1]:
        raise Refused(f"the guidance interval {interval} is empty: its low end is above its high end")


def weight_at(weight: float, interval: Interval | None, t: Time | Tensor, like: Tensor) -> float | Tensor:
    """The weight at t: a number for one time, (B, 1, ..) for a batch of times (B,)."""
    if interval is None:
        return float(weight)
    low, high = interval
    if not isinstance(t, Tensor):
        return float(weight) if low <= t <= high else 1.0
    inside = ((t >= low) & (t <= high)).to(like.device).view(-1, *([1] * (like.ndim - 1)))
    return torch.where(inside, torch.as_tensor(weight).to(like), torch.ones((), device=like.device).to(like))


def acts(weight: float, interval: Interval | None, t: Time | Tensor) -> bool:
    """Whether guidance asks a second time at t; at a batch of times it always does."""
    if interval is not None and not isinstance(t, Tensor):
        return weight != 1.0 and bool(interval[0] <= t <= interval[1])
    return weight != 1.0 or interval is not None


def refuse_other_process(one: Process, other: Process, which: str) -> None:
    """Two denoisers that speak of one x_t at one t must mean the same levels by it.

    Raises:
        Refused: they do not.
    """
    if one.identity() != other.identity():
        raise Refused(
            f"{which} walks another process, {other}, than the model, {one}: its x_t is another one at the same t; "
            "take one trained on the same schedule"
        )
