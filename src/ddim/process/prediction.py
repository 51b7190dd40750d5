"""What a network's output means: eps, x0, v, score, velocity, EDM's F, and the pair they all stand for.

x_t = signal * x0 + noise * eps ties the pair (x0, eps) to x_t. Every function here returns a pair for
which that holds, so that whatever replaces x0 later (a clip, a threshold, guidance) carries its eps.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ddim.process.level import AnyLevel, Level
from ddim.refused import Refused

ROUNDING = 16  # units in the last place that the sum of two squared roots may be off


class Prediction(NamedTuple):
    """Predicted clean image and predicted noise, each (B, *); x_t == signal * x0 + noise * eps.

    Attributes:
        variance: what the network says of the variance of a step down, (B, *), in its own terms (`learned_std`); None
            where it says nothing, or nobody knows what it means.
    """

    x0: Tensor
    eps: Tensor
    variance: Tensor | None = None


class Parameterisation(Protocol):
    """One meaning of a network's output. `decode` of `target` is the identity on (x0, eps)."""

    name: str

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        """What the network should return for x_t = signal * x0 + noise * eps; (B, *)."""
        ...

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        """The pair behind a network's output at x_t; all (B, *)."""
        ...

    def feed(self, x_t: Tensor, level: AnyLevel) -> Tensor:
        """What the network is shown of x_t."""
        ...


class _Plain:
    """The network is shown x_t itself."""

    def feed(self, x_t: Tensor, level: AnyLevel) -> Tensor:
        return x_t


class Eps(_Plain):
    """The network returns the noise: x0 = (x_t - noise * eps) / signal (DDPM eq. 15; DDIM eq. 9)."""

    name = "eps"

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return eps

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        return Prediction((x_t - level.noise * out) / level.signal, out)


class X0(_Plain):
    """The network returns the clean image: eps = (x_t - signal * x0) / noise."""

    name = "x0"

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return x0

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        return rederive(out, x_t, level)


class V(_Plain):
    """The network returns v = signal * eps - noise * x0 (Salimans & Ho, arXiv 2202.00512, appendix D)."""

    name = "v"

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return level.signal * eps - level.noise * x0

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        n = square_sum(level)
        x0, eps = level.signal * x_t - level.noise * out, level.signal * out + level.noise * x_t
        return Prediction(x0 / n, eps / n)


def square_sum(level: AnyLevel) -> Any:
    """signal^2 + noise^2: exactly 1 where the process preserves variance, whatever the roots were rounded to."""
    n = level.signal**2 + level.noise**2
    if isinstance(n, Tensor):
        return torch.where((n - 1.0).abs() <= ROUNDING * torch.finfo(n.dtype).eps, torch.ones_like(n), n)
    return 1.0 if abs(n - 1.0) <= ROUNDING * sys.float_info.epsilon else n


class Score(_Plain):
    """The network returns the score of x_t's law: eps = -noise * score (Song et al., arXiv 2011.13456)."""

    name = "score"

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return -eps / level.noise

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        eps = -level.noise * out
        return Prediction((x_t - level.noise * eps) / level.signal, eps)


class Velocity(_Plain):
    """The network returns eps - x0, the velocity where signal = 1 - t, noise = t (flow matching, arXiv 2210.02747)."""

    name = "velocity"

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return eps - x0

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        both = level.signal + level.noise
        return Prediction((x_t - level.noise * out) / both, (x_t + level.signal * out) / both)


class Edm:
    """EDM's preconditioned F (arXiv 2206.00364, table 1 and eq. 7): x0 = c_skip x_t + c_out F(c_in x_t).

    With n^2 = noise^2 + sd^2 signal^2: c_in = 1/n, c_skip = sd^2 signal/n^2, c_out = sd noise/n; on the EDM process
    (signal = 1) they are the paper's.
    """

    name = "edm"

    def __init__(self, data_std: float = 0.5) -> None:
        self.sd = data_std

    def _n(self, level: AnyLevel) -> Any:
        return (level.noise**2 + self.sd**2 * level.signal**2) ** 0.5

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        F: Tensor = (level.noise * x0 - self.sd**2 * level.signal * eps) / (self.sd * self._n(level))
        return F

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        n = self._n(level)
        x0 = (self.sd**2 * level.signal / n**2) * x_t + (self.sd * level.noise / n) * out
        return Prediction(x0, (level.noise / n**2) * x_t - (self.sd * level.signal / n) * out)

    def feed(self, x_t: Tensor, level: AnyLevel) -> Tensor:
        shown: Tensor = x_t / self._n(level)
        return shown


class AtUnitVariance:
    """The network is shown x_t at unit variance, x_t/n with n^2 = signal^2 + noise^2, and answers for that level.

    The pair (x0, eps) is the same in all units, so what it means there is what it means here. The VP column of EDM's
    table 1 is this around "eps": c_in = 1/sqrt(sigma^2 + 1), c_skip = 1, c_out = -sigma.
    """

    def __init__(self, inner: Parameterisation) -> None:
        self.inner = inner
        self.name = inner.name

    def _unit(self, level: AnyLevel) -> tuple[Any, AnyLevel]:
        n = square_sum(level) ** 0.5
        return n, Level(level.signal / n, level.noise / n)

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return self.inner.target(x0, eps, self._unit(level)[1])

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        n, unit = self._unit(level)
        return self.inner.decode(out, x_t / n, unit)

    def feed(self, x_t: Tensor, level: AnyLevel) -> Tensor:
        n, unit = self._unit(level)
        return self.inner.feed(x_t / n, unit)


PARAMETERISATIONS: dict[str, Parameterisation] = {p.name: p for p in (Eps(), X0(), V(), Score(), Velocity(), Edm())}


def parameterisation(name: str, *, data_std: float = 0.5, unit_input: bool = False) -> Parameterisation:
    """The parameterisation of that name: eps, x0, v, score, velocity or edm.

    Args:
        data_std: of "edm" alone. unit_input: see `AtUnitVariance`; "edm" scales what it shows by itself.

    Raises:
        Refused: any other name; unit_input of "edm".
    """
    if name not in PARAMETERISATIONS:
        raise Refused(f"unknown prediction {name!r}; choose one of {', '.join(PARAMETERISATIONS)}")
    if name == "edm":
        if unit_input:
            raise Refused("prediction 'edm' scales the network's input by itself: leave unit_input off")
        return Edm(data_std) if data_std != 0.5 else PARAMETERISATIONS[name]
    return AtUnitVariance(PARAMETERISATIONS[name]) if unit_input else PARAMETERISATIONS[name]


def rederive(x0: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
    """The pair that has this x0: eps = (x_t - signal * x0) / noise. Needs noise > 0, that is t >= 1."""
    return Prediction(x0, (x_t - level.signal * x0) / level.noise)
