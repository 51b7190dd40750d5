"""Continuous processes: signal and noise as functions of a real t. Score, EDM and flow models live on these.

t = 0 is the clean image on every one of them, VE included, whose noise tends to sigma_min and not to 0; `first` is
the cleanest time at which a network is asked.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ddim.process.level import Level
from ddim.refused import Refused

CHECKED = 512  # places at which noise/signal is seen to rise
BISECTIONS = 200


@dataclass(frozen=True)
class Continuous:
    """x_t = signal(t) x0 + noise(t) eps for real t in (0, T], the clean image at t = 0.

    Args:
        name: its kind and numbers; two processes of one name are one.
        signal, noise: functions of t in (0, T]; noise/signal must rise strictly.
        T: the noisiest time. first: the cleanest time at which a network is asked.
        numbers: those a named kind was made of, which is all a file needs; None for functions of one's own.

    Raises:
        Refused: an impossible range, a level without signal and noise, or a ratio that does not rise.
    """

    name: str
    signal: Callable[[float], float] = field(compare=False, repr=False)
    noise: Callable[[float], float] = field(compare=False, repr=False)
    T: float = 1.0
    first: float = 1e-3
    numbers: Mapping[str, float] | None = field(default=None, compare=False, repr=False)

    discrete = False

    @property
    def kind(self) -> str:
        """The name without its numbers: vp, subvp, ve, edm, flow."""
        return self.name.partition("(")[0]

    def __post_init__(self) -> None:
        if not 0.0 < self.first < self.T < math.inf:
            raise Refused(f"process {self.name} needs 0 < first < T, got first = {self.first:g} and T = {self.T:g}")
        before = 0.0
        for i in range(CHECKED + 1):
            t = self.first + (self.T - self.first) * i / CHECKED
            at = self.at(t)
            ratio = _ratio(at)
            if not (at.signal >= 0.0 and at.noise >= 0.0 and ratio > before):
                raise Refused(
                    f"process {self.name}: noise/signal must rise strictly with t, but it is {ratio:.6g} at "
                    f"t = {t:.6g} after {before:.6g}"
                )
            before = ratio

    def at(self, t: float) -> Level[float]:
        """signal(t) and noise(t); (1, 0) at t = 0.

        Raises:
            Refused: t outside 0..T.
        """
        if not 0.0 <= t <= self.T:
            raise Refused(f"t = {t} is outside 0..{self.T:g}")
        return Level(1.0, 0.0) if t == 0.0 else Level(self.signal(float(t)), self.noise(float(t)))

    def at_batch(self, t: Tensor, like: Tensor) -> Level[Tensor]:
        """The same for a batch: t (B,) -> two (B, 1, ..) tensors that broadcast over `like` (B, *)."""
        levels = torch.tensor([self.at(float(v)) for v in t.tolist()], dtype=torch.float64).reshape(-1, 2)
        shape = (-1, *([1] * (like.ndim - 1)))
        signal, noise = (column.view(shape).to(like.device, like.dtype) for column in levels.unbind(1))
        return Level(signal, noise)

    def checked(self, times: Sequence[float]) -> tuple[float, ...]:
        """These times as floats.

        Raises:
            Refused: one outside 0..T.
        """
        found = tuple(float(t) for t in times)
        if found and not (min(found) >= 0.0 and max(found) <= self.T):
            raise Refused(f"tau runs from {min(found):g} to {max(found):g}, outside 0..{self.T:g}")
        return found

    def start(self, t: float) -> float:
        """noise(t): pure noise at that level."""
        return self.at(t).noise

    def identity(self) -> bytes:
        """Its name: kind and numbers."""
        return self.name.encode()

    def time_of(self, ratio: float) -> float:
        """The t at which noise/signal is this ratio: how a network of one process serves another.

        Raises:
            Refused: a ratio beyond that of T.
        """
        if ratio <= 0.0:
            return 0.0
        if ratio > _ratio(self.at(self.T)):
            raise Refused(
                f"noise/signal = {ratio:.6g} is beyond {_ratio(self.at(self.T)):.6g}, the most of {self.name}"
            )
        low, high = 0.0, float(self.T)
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            if middle in (low, high):
                break
            low, high = (middle, high) if _ratio(self.at(middle)) < ratio else (low, middle)
        return high


def _ratio(at: Level[float]) -> float:
    return at.noise / at.signal if at.signal > 0.0 else math.inf


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Continuous:
    """Variance-preserving: log signal = -t^2 (beta_max - beta_min)/4 - t beta_min/2 (arXiv 2011.13456, eq. 29, 33)."""

    def log_signal(t: float) -> float:
        return -(t**2) * (beta_max - beta_min) / 4 - t * beta_min / 2

    return _named(
        "vp", lambda t: math.exp(log_signal(t)), lambda t: math.sqrt(-math.expm1(2 * log_signal(t))),
        beta_min=beta_min, beta_max=beta_max,
    )  # fmt: skip


def subvp(beta_min: float = 0.1, beta_max: float = 20.0) -> Continuous:
    """Sub-variance-preserving: vp's signal, noise = 1 - signal^2 (arXiv 2011.13456, eq. 29, 33)."""

    def log_signal(t: float) -> float:
        return -(t**2) * (beta_max - beta_min) / 4 - t * beta_min / 2

    return _named(
        "subvp", lambda t: math.exp(log_signal(t)), lambda t: -math.expm1(2 * log_signal(t)),
        beta_min=beta_min, beta_max=beta_max,
    )  # fmt: skip


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Continuous:
    """Variance-exploding: signal 1, noise = sigma_min (sigma_max/sigma_min)^t (arXiv 2011.13456, eq. 30)."""
    _refuse_unordered("ve", sigma_min, sigma_max)
    return _named(
        "ve", lambda t: 1.0, lambda t: sigma_min * (sigma_max / sigma_min) ** t, first=1e-5,
        sigma_min=sigma_min, sigma_max=sigma_max,
    )  # fmt: skip


def edm(sigma_min: float = 0.002, sigma_max: float = 80.0) -> Continuous:
    """EDM's: signal 1, noise = t itself, from sigma_min to sigma_max (arXiv 2206.00364, table 1)."""
    return _named(
        "edm", lambda t: 1.0, lambda t: t, T=sigma_max, first=sigma_min, sigma_min=sigma_min, sigma_max=sigma_max
    )


def flow() -> Continuous:
    """Flow matching, rectified flow: signal = 1 - t, noise = t (arXiv 2210.02747, 2209.03003)."""
    return _named("flow", lambda t: 1.0 - t, lambda t: t)


KINDS: dict[str, Callable[..., Continuous]] = {"vp": vp, "subvp": subvp, "ve": ve, "edm": edm, "flow": flow}


def process_of(kind: str, numbers: Mapping[str, float] | None = None) -> Continuous:
    """The continuous process of that kind, with its usual numbers or these: the way back from `kind` and `numbers`.

    Raises:
        Refused: an unknown kind, a number it does not have, or numbers that make no process.
    """
    if kind not in KINDS:
        raise Refused(f"unknown process {kind!r}; choose one of {', '.join(KINDS)}")
    known = inspect.signature(KINDS[kind]).parameters
    odd = [name for name in numbers or {} if name not in known]
    if odd:
        raise Refused(f"process {kind} has no {odd[0]}; its numbers are {', '.join(known) or 'none'}")
    try:
        return KINDS[kind](**dict(numbers or {}))
    except ArithmeticError:
        raise Refused(f"process {kind} cannot be made of {dict(numbers or {})}: its levels are no numbers") from None


def _named(
    kind: str, signal: Callable[[float], float], noise: Callable[[float], float], *, T: float = 1.0,
    first: float = 1e-3, **numbers: float,
) -> Continuous:  # fmt: skip
    told = f"({', '.join(f'{value:.12g}' for value in numbers.values())})" if numbers else ""
    return Continuous(kind + told, signal, noise, T, first, numbers)


def _refuse_unordered(kind: str, low: float, high: float) -> None:
    if not 0.0 < low < high < math.inf:
        raise Refused(f"process {kind} needs 0 < sigma_min < sigma_max, got {low:g} and {high:g}")
