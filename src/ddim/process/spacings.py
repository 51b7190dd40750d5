"""Times on a continuous process: real numbers from T to `first`, then the clean image; see `tau`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from ddim.process.continuous import Continuous
from ddim.refused import Refused

RHO = 7.0  # EDM's: how much the clean end is favoured
ContinuousRule = Callable[[Continuous, int], list[float]]  # (process, S) -> falling times without the final 0, S >= 2


def _uniform(p: Continuous, S: int) -> list[float]:
    return [p.T, *(p.T + (p.first - p.T) * i / (S - 1) for i in range(1, S - 1)), p.first]


def _trailing(p: Continuous, S: int) -> list[float]:
    return [p.T * (S - i) / S for i in range(S)]


def _quadratic(p: Continuous, S: int) -> list[float]:
    return [p.T, *(p.first + (p.T - p.first) * ((S - 1 - i) / (S - 1)) ** 2 for i in range(1, S - 1)), p.first]


def _by_ratio(p: Continuous, S: int, way: Callable[[float], float], back: Callable[[float], float]) -> list[float]:
    """Even in way(noise/signal); the ends are T and `first` themselves."""
    last = p.at(p.first).noise / p.at(p.first).signal
    at = p.at(p.T)
    top = at.noise / at.signal if at.signal > 0.0 else 1.0 / last
    whole = at.signal > 0.0
    count = S if whole else S - 1  # where T has no signal it stands before the even ones
    ends = way(top), way(last)
    inner = [p.time_of(back(ends[0] + (ends[1] - ends[0]) * i / (count - 1))) for i in range(1, count - 1)]
    if whole:
        return [p.T, *inner, p.first]
    return [p.T, p.time_of(top), *inner, p.first] if count > 1 else [p.T, p.first]


def _logsnr(p: Continuous, S: int) -> list[float]:
    return _by_ratio(p, S, math.log, math.exp)


def _edm(p: Continuous, S: int) -> list[float]:
    return _by_ratio(p, S, lambda r: r ** (1 / RHO), lambda v: v**RHO)


RULES: dict[str, ContinuousRule] = {
    "uniform": _uniform, "trailing": _trailing, "quadratic": _quadratic, "logsnr": _logsnr, "edm": _edm,
}  # fmt: skip


def continuous(process: Continuous, steps: int | None, spacing: str | Sequence[float]) -> tuple[float, ...]:
    """The times of S steps on a continuous process, or those given, checked: strictly falling, the last one 0."""
    if not isinstance(spacing, str):
        return _explicit(process, steps, spacing)
    if steps is None or steps < 1:
        raise Refused(f"steps must be at least 1, got steps = {steps}")
    if spacing not in RULES:
        raise Refused(f"unknown spacing {spacing!r} for real times; choose one of {', '.join(RULES)} or give the times")
    times = [float(process.T)] if steps == 1 else [float(t) for t in RULES[spacing](process, steps)]
    return (*times, 0.0)


def _explicit(process: Continuous, steps: int | None, sequence: Sequence[float]) -> tuple[float, ...]:
    times = process.checked(sequence)
    if len(times) < 2 or times[-1] != 0.0:
        raise Refused(f"explicit times must end at 0, the clean image, after at least one step; got {list(times)}")
    for t, s in itertools.pairwise(times):
        if s >= t:
            raise Refused(f"explicit times must fall strictly, but {t} is followed by {s}")
    if steps is not None and steps != len(times) - 1:
        raise Refused(f"steps = {steps}, but the explicit times make {len(times) - 1} steps")
    return times
