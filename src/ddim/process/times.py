"""Which times a sampler visits: tau, strictly falling, S+1 entries, the last one 0, the clean image.

Consumers walk neighbouring entries as pairs (t, s) and never compute s by arithmetic on t; that
arithmetic is what makes the well-known schedulers wrong whenever S does not divide T. Times are
1-based as in the paper: T is pure noise, 1 the last network call, 0 the clean image. A 0-based
network label is t - 1 (see `ddim.denoise.zero_based`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, overload

from ddim.process.continuous import Continuous
from ddim.process.level import Process
from ddim.process.schedule import Schedule
from ddim.process.spacings import continuous as _continuous
from ddim.refused import Refused

DiscreteRule = Callable[[int, int], list[int]]  # (T, S) -> times, rising, without the final 0


@overload
def tau(
    T: int | Schedule, steps: int | None = None, spacing: str | Sequence[int] = "uniform", *,
    alpha_bar: Sequence[float] | None = None, offset: int = 0,
) -> tuple[int, ...]: ...  # fmt: skip
@overload
def tau(T: Continuous, steps: int | None = None, spacing: str | Sequence[float] = "uniform") -> tuple[float, ...]: ...
@overload
def tau(T: Process, steps: int | None = None, spacing: str | Sequence[Any] = "uniform") -> tuple[Any, ...]: ...
def tau(
    T: Any,
    steps: int | None = None,
    spacing: Any = "uniform",
    *,
    alpha_bar: Sequence[float] | None = None,
    offset: int = 0,
) -> tuple[Any, ...]:
    """The times a sampler of `steps` steps visits: steps+1 numbers, strictly falling, tau[-1] == 0.

    Whole numbers for T or a `Schedule`:

    ======================  ==========================================================================
    spacing                 times, rising, i = 1..S
    ======================  ==========================================================================
    ``uniform``             1..T evenly, both ends exact, halves rounded up; S = 1 gives T
    ``quadratic``           1 + (T-1) ((i-1)/(S-1))^2, both ends exact, kept distinct
    ``logsnr``              equal steps of log(alpha_bar/(1-alpha_bar)) from 1 to T, kept distinct
    ``trailing``            round(T i/S) (arXiv 2305.08891, table 2)
    ``leading``             1 + (i-1) floor(T/S) + offset (the same table; offset is diffusers' steps_offset)
    ``linspace``            1 + round((T-1)(i-1)/(S-1)) (the same table), halves to even
    ``paper-linear``        floor(c i), c = T/S (DDIM, appendix D.2)
    ``paper-quadratic``     floor(c i^2), c = T/S^2 (the same), kept distinct from 1 upwards
    ``ermongroup-uniform``  range(0, T, T // S) + 1: that program's sequence, even when it is not S long
    ``ermongroup-quad``     floor(linspace(0, sqrt(0.8 T), S)^2) + 1, its repeats (exact no-ops) left out
    ``openai``              range(0, T, r) + 1 with the first integer stride r that gives S times ("ddimS")
    a sequence              checked and returned: strictly falling, within 1..T, then the final 0
    ======================  ==========================================================================

    Real numbers for a continuous process, from its noisiest time T to its cleanest, `first`, and then 0; S = 1 gives T:

    ======================  ==========================================================================
    ``uniform``             T..first evenly in t, both ends exact
    ``trailing``            T i/S
    ``quadratic``           first + (T-first) ((i-1)/(S-1))^2
    ``logsnr``              equal steps of log(noise/signal); where T has no signal the second time is as far from
                            pure noise as `first` is from the image
    ``edm``                 (noise/signal)^(1/7) evenly (arXiv 2206.00364, eq. 5, rho = 7); pure noise as for logsnr
    a sequence              checked and returned: strictly falling, within 0..T, the last one 0
    ======================  ==========================================================================

    Args:
        T: number of diffusion steps, or the process.
        steps: S, from 1 to T. May be None for an explicit sequence.
        alpha_bar: the schedule's T+1 numbers, read by ``logsnr`` only; without it (and without a schedule) the linear
            schedule of Ho et al., scaled to T steps, is meant.
        offset: read by ``leading`` only.

    Raises:
        Refused: an impossible request, with both numbers.
    """
    if not isinstance(T, int):
        if not T.discrete:
            if offset or alpha_bar is not None:
                raise Refused("offset and alpha_bar are of schedules; a continuous process takes neither")
            return _continuous(T, steps, spacing)
        alpha_bar = T.alpha_bar.tolist() if alpha_bar is None else alpha_bar
        T = T.T
    if T < 1:
        raise Refused(f"T must be at least 1, got T = {T}")
    if not isinstance(spacing, str):
        return _explicit(T, steps, spacing)
    if steps is None or not 1 <= steps <= T:
        raise Refused(f"steps must lie between 1 and T = {T}, got steps = {steps}")
    if offset and spacing != "leading":
        raise Refused(f"offset = {offset} is only for spacing 'leading', got spacing {spacing!r}")
    if spacing == "logsnr":
        rising = _logsnr(T, steps, alpha_bar)
    elif spacing == "leading":
        rising = [1 + i * (T // steps) + offset for i in range(steps)]
    elif spacing in _RULES:
        rising = _RULES[spacing](T, steps)
    else:
        raise Refused(f"unknown spacing {spacing!r}; choose one of {', '.join(SPACINGS)} or give the times")
    if rising[-1] > T:
        raise Refused(f"spacing {spacing!r} with offset {offset} would start at {rising[-1]}, above T = {T}")
    return (*reversed(rising), 0)


def _uniform(T: int, S: int) -> list[int]:
    if S == 1:
        return [T]
    return [1 + (2 * (T - 1) * i + S - 1) // (2 * (S - 1)) for i in range(S)]


def _quadratic(T: int, S: int) -> list[int]:
    if S == 1:
        return [T]
    n = (S - 1) ** 2
    return _distinct([1 + (2 * (T - 1) * i * i + n) // (2 * n) for i in range(S)], T)


def _trailing(T: int, S: int) -> list[int]:
    return [round(Fraction(T * i, S)) for i in range(1, S + 1)]


def _linspace(T: int, S: int) -> list[int]:
    if S == 1:
        return [T]  # the published formula gives [1] here: pure noise handed over as almost clean
    return [1 + round(Fraction((T - 1) * i, S - 1)) for i in range(S)]


def _paper_linear(T: int, S: int) -> list[int]:
    return [T * i // S for i in range(1, S + 1)]


def _paper_quadratic(T: int, S: int) -> list[int]:
    return _distinct([T * i * i // (S * S) for i in range(1, S + 1)], T)


def _ermongroup_uniform(T: int, S: int) -> list[int]:
    return [t + 1 for t in range(0, T, T // S)]


def _ermongroup_quad(T: int, S: int) -> list[int]:
    top = math.sqrt(T * 0.8)  # floats on purpose: the program truncates numpy's linspace(0, top, S)**2
    roots = [i * (top / (S - 1)) for i in range(S - 1)] + [top] if S > 1 else [0.0]
    return sorted({int(r**2) + 1 for r in roots})


def _openai(T: int, S: int) -> list[int]:
    for stride in range(1, T):
        times = range(0, T, stride)
        if len(times) == S:
            return [t + 1 for t in times]
    raise Refused(f"no whole stride through T = {T} gives {S} steps; 'openai' (ddim{S}) cannot be had, 'uniform' can")


def _logsnr(T: int, S: int, alpha_bar: Sequence[float] | None) -> list[int]:
    table = [float(a) for a in alpha_bar] if alpha_bar is not None else _linear_alpha_bar(T)
    if len(table) != T + 1:
        raise Refused(f"alpha_bar must have T + 1 = {T + 1} entries, got {len(table)}")
    if S == 1:
        return [T]
    logsnr = [math.log(a) - math.log1p(-a) if 0 < a < 1 else math.copysign(math.inf, a - 0.5) for a in table]
    last = T if table[T] > 0 else T - 1  # log 0: with zero terminal SNR, T itself is added at the end
    count = S if last == T else S - 1
    times, t = [], 1
    for i in range(count):
        goal = logsnr[1] + (logsnr[last] - logsnr[1]) * (i / (count - 1) if count > 1 else 0.0)
        while t < last and abs(logsnr[t + 1] - goal) <= abs(logsnr[t] - goal):
            t += 1
        times.append(t)
    return _distinct(times if last == T else [*times, T], T)


def _linear_alpha_bar(T: int) -> list[float]:
    table, low, high = [1.0], 0.1 / T, min(20.0 / T, 0.999)
    for i in range(T):
        table.append(table[-1] * (1 - low - (high - low) * (i / (T - 1) if T > 1 else 0.0)))
    return table


def _distinct(rising: list[int], T: int) -> list[int]:
    """Push equal neighbours apart: up from 1, then down from T. Needs len(rising) <= T, moves as little as it can."""
    times = list(rising)
    for i in range(len(times)):
        times[i] = max(times[i], times[i - 1] + 1 if i else 1)
    for i in reversed(range(len(times))):
        times[i] = min(times[i], times[i + 1] - 1 if i + 1 < len(times) else T)
    return times


def _explicit(T: int, steps: int | None, sequence: Sequence[int]) -> tuple[int, ...]:
    times = tuple(int(t) for t in sequence)
    if any(int(t) != t for t in sequence):
        raise Refused(f"times must be whole numbers, got {list(sequence)}")
    if len(times) < 2 or times[-1] != 0:
        raise Refused(f"explicit times must end at 0, the clean image, after at least one step; got {list(times)}")
    for t, s in itertools.pairwise(times):
        if s >= t:
            raise Refused(f"explicit times must fall strictly, but {t} is followed by {s}")
    if times[0] > T:
        raise Refused(f"explicit times start at {times[0]}, above T = {T}")
    if steps is not None and steps != len(times) - 1:
        raise Refused(f"steps = {steps}, but the explicit times make {len(times) - 1} steps")
    return times


_RULES: dict[str, DiscreteRule] = {
    "uniform": _uniform,
    "quadratic": _quadratic,
    "trailing": _trailing,
    "linspace": _linspace,
    "paper-linear": _paper_linear,
    "paper-quadratic": _paper_quadratic,
    "ermongroup-uniform": _ermongroup_uniform,
    "ermongroup-quad": _ermongroup_quad,
    "openai": _openai,
}
SPACINGS: tuple[str, ...] = (*_RULES, "logsnr", "leading")
