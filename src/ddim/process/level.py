"""`Level`, the two scales of x_t = signal x0 + noise eps, and what a process is: a level for every time.

All step formulas are written in these two alone, so that DDPM, score, EDM and flow models are one thing: the ratio
noise/signal is the clock, and signal only says in which units x is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from torch import Tensor

N = TypeVar("N", float, Tensor)
Time = int | float
"""Whole numbers 0..T of a `Schedule`, real numbers of a continuous process; 0 is the clean image."""


class Level(NamedTuple, Generic[N]):
    """The two scales of x_t = signal * x0 + noise * eps, both >= 0, not both 0; floats, or (B, 1, ..) tensors."""

    signal: N
    noise: N

    @property
    def alpha_bar(self) -> N:
        """signal^2, the name it has where signal^2 + noise^2 = 1."""
        return self.signal * self.signal


AnyLevel = Level[float] | Level[Tensor]


class Process(Protocol):
    """How an image drowns in noise: noise/signal rises strictly with t, from 0 at t = 0.

    Attributes:
        name: its kind, for recipes.
        discrete: whether times are whole numbers.
        T: the noisiest time. first: the cleanest time at which a network is asked.
    """

    @property
    def name(self) -> str: ...

    @property
    def discrete(self) -> bool: ...

    @property
    def T(self) -> Any: ...

    @property
    def first(self) -> Any: ...

    def at(self, t: Any) -> Level[float]:
        """The level at one time; (1, 0) at t = 0.

        Raises:
            Refused: t outside 0..T.
        """
        ...

    def at_batch(self, t: Tensor, like: Tensor) -> Level[Tensor]:
        """The levels at times (B,), as two (B, 1, ..) tensors that broadcast over `like` (B, *)."""
        ...

    def checked(self, times: Sequence[Any]) -> tuple[Any, ...]:
        """These times, each one of this process.

        Raises:
            Refused: one is of another kind, or outside 0..T.
        """
        ...

    def time_of(self, ratio: float) -> float:
        """The t, real on a `Schedule` too, at which noise/signal is this ratio.

        Raises:
            Refused: a ratio beyond that of T.
        """
        ...

    def start(self, t: Any) -> float:
        """Standard deviation of the pure noise from which a walk that begins at t starts."""
        ...

    def identity(self) -> bytes:
        """What tells this process from others, for recipes."""
        ...


def level_at(process: Process, t: Time | Tensor, like: Tensor) -> AnyLevel:
    """The level at t: floats for one time, (B, 1, ..) tensors for a batch of times."""
    return process.at_batch(t, like) if isinstance(t, Tensor) else process.at(t)


def as_rows(x: Tensor) -> Tensor:
    """(B, *) as (B, D); items that are single numbers, (B,), too."""
    return x[:, None] if x.ndim == 1 else x.flatten(1)


def half_log_snr(at: Level[float]) -> float:
    """lambda = log(signal/noise); +inf where the noise is 0, -inf where the signal is."""
    if at.noise == 0.0:
        return math.inf
    return math.log(at.signal / at.noise) if at.signal > 0.0 else -math.inf
