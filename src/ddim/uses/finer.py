"""Times on which DDIM's step can be undone: what `exact` tries where those that were asked for are too far apart.

Near the clean image what a step multiplies the noise by decides whether it has a preimage that can be found. And DDIM's
step to 0 makes only images that the network itself says; real ones, with their exact grey levels, are none. So these
times are near one another at the clean end, which is the first noisy level, and the image is noised there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ddim.process import Process, noise
from ddim.refused import Refused
from ddim.uses.certificate import Road

POWERS = (2, 4)
"""Even in arctan(noise/signal)^(1/power): the higher, the finer at the clean end."""
START = "start"  # the purpose of the noise an image begins with


def roads_of(process: Process, tau: Sequence[Any], start: Any | None) -> tuple[Road, ...]:
    """The road asked for, from tau[0] to tau[-1] or to `start`, and finer ones with at most as many steps as tau has.

    Raises:
        Refused: `start` not between tau[0] and the clean image.
    """
    tau = tuple(tau)
    if start is not None:
        (start,) = process.checked((start,))
        if not process.first <= start < tau[0]:
            raise Refused(f"`start` must lie from {process.first} to below {tau[0]}, got {start}")
        asked = Road((*(t for t in tau if t > start), start), start)
    else:
        asked = Road(tau)
    level = process.first if tau[-1] == 0 and start is None else start
    low = tau[-1] if level is None else level
    found = [Road(times, level) for p in POWERS if (times := _times(process, low, tau[0], len(tau) - 1, p))]
    return tuple(dict.fromkeys((asked, *found)))


def _times(process: Process, low: Any, high: Any, steps: int, power: int) -> tuple[Any, ...] | None:
    """From high to low, or None where they are one; where there are fewer whole times than steps, all of them."""
    if not low < high:
        return None
    steps = min(steps, high - low) if process.discrete else steps

    ends = (process.at(t) for t in (low, high))
    first, last = (math.atan2(at.noise, at.signal) ** (1 / power) for at in ends)
    inner = [process.time_of(math.tan((first + (last - first) * i / steps) ** power)) for i in range(1, steps)]
    if not process.discrete:
        return (high, *reversed(inner), low)
    rising = [low]
    for t in inner:
        rising.append(max(round(t), rising[-1] + 1))
    for i in range(1, steps):  # pushed apart from below, they may have reached the top
        rising[-i] = min(rising[-i], high - i)
    return (high, *reversed(rising))


def noised(process: Process, x: Tensor, road: Road, seeds: Sequence[int]) -> Tensor:
    """Images as the road begins: at its start with the noise of their seeds, or as they are."""
    if road.start is None:
        return x
    at = process.at(road.start)
    return at.signal * x + at.noise * _noise(x, seeds)


def cleaned(process: Process, x: Tensor, road: Road, seeds: Sequence[int]) -> Tensor:
    """The same noise taken off again: images of states at the road's start."""
    if road.start is None:
        return x
    at = process.at(road.start)
    return (x - at.noise * _noise(x, seeds)) / at.signal


def _noise(x: Tensor, seeds: Sequence[int]) -> Tensor:
    return noise(seeds, x.shape[1:], purpose=START, dtype=x.dtype, device=x.device)
