"""How long a run will take on this machine, from its first steps; and which networks would be done in a day."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from ddim.jobs.train.plan import Plan
from ddim.nets import PRESETS, DiffusersNetwork, build
from ddim.refused import Refused

DAY = 86400.0
HOPELESS = 2 * DAY  # a run that takes longer is asked about
SKIPPED, LEAST_STEPS, LEAST_SECONDS = 3, 8, 3.0  # first steps load kernels; fewer or shorter ones say little


class Clock:
    """Time of a step and time left, by the wall: batches, previews and checkpoints count."""

    def __init__(self, max_steps: int, now: Callable[[], float] = time.monotonic) -> None:
        self.max_steps, self.now = max_steps, now
        self.seen, self.begun, self.step, self.last = 0, 0.0, 0, 0.0

    def tick(self, step: int) -> None:
        """That step is done."""
        self.seen, self.step, self.last = self.seen + 1, step, self.now()
        if self.seen == SKIPPED:
            self.begun = self.last

    @property
    def seconds(self) -> float | None:
        """Of one step, or None while nobody can tell."""
        counted = self.seen - SKIPPED
        if counted < 1 or (counted < LEAST_STEPS and self.last - self.begun < LEAST_SECONDS):
            return None
        return (self.last - self.begun) / counted

    @property
    def left(self) -> float | None:
        """Seconds to the last step."""
        return None if self.seconds is None else self.seconds * (self.max_steps - self.step)


class Smaller(NamedTuple):
    """A network that would be trained in `seconds`, on images of `size` (H, W)."""

    preset: str
    size: tuple[int, int]
    seconds: float


def smaller(plan: Plan, seconds: float, limit: float = DAY) -> Smaller | None:
    """The costliest network, at the largest size, whose run takes at most `limit` where the plan's takes `seconds`.

    A step's time is taken to go with the multiplications of one network call. None where nothing fits.
    """
    c, h, w = plan.shape
    factor = plan.images.shape[1] // h
    own = multiplications(plan.preset, (c, h, w))
    while own and min(h, w) >= 8:
        costs = {name: multiplications(name, (c, h, w)) for name in PRESETS}
        fits = [Smaller(name, (factor * h, factor * w), seconds * cost / own) for name, cost in costs.items() if cost]
        fits = [s for s in fits if s.seconds <= limit]
        if fits:
            return max(fits, key=lambda s: s.seconds)
        h, w = (max(8, n // 2 // 8 * 8) if n > 8 else 4 for n in (h, w))
    return None


def multiplications(preset: str, shape: tuple[int, int, int]) -> int | None:
    """Of one call on one image, counted without computing; None where the network does not take that shape."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.device("meta"):
            network = DiffusersNetwork(build(preset, shape=shape))
    except Refused:
        return None
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        network(torch.empty((1, *shape), device="meta"), torch.zeros(1, dtype=torch.int64, device="meta"))
    return int(counted.get_total_flops())
