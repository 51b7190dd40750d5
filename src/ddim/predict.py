"""What a network's output means: the parameterisations eps, x0 and v, and the pair they all stand for.

x_t = signal * x0 + noise * eps ties the pair (x0, eps) to x_t. Every function here returns a pair for
which that holds, so that whatever replaces x0 later (a clip, a threshold, guidance) carries its eps.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from ddim.schedule import Level


class Prediction(NamedTuple):
    """Predicted clean image and predicted noise, each (B, *); x_t == signal * x0 + noise * eps."""

    x0: Tensor
    eps: Tensor


AnyLevel = Level[float] | Level[Tensor]


class Parameterisation(Protocol):
    """One meaning of a network's output. `decode` of `target` is the identity on (x0, eps)."""

    name: str

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        """What the network should return for x_t = signal * x0 + noise * eps; (B, *)."""
        ...

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        """The pair behind a network's output at x_t; all (B, *)."""
        ...


class Eps:
    """The network returns the noise: x0 = (x_t - noise * eps) / signal (DDPM eq. 15; DDIM eq. 9)."""

    name = "eps"

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return eps

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        return Prediction((x_t - level.noise * out) / level.signal, out)


class X0:
    """The network returns the clean image: eps = (x_t - signal * x0) / noise."""

    name = "x0"

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return x0

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        return rederive(out, x_t, level)


class V:
    """The network returns v = signal * eps - noise * x0 (Salimans & Ho, arXiv 2202.00512, appendix D)."""

    name = "v"

    def target(self, x0: Tensor, eps: Tensor, level: AnyLevel) -> Tensor:
        return level.signal * eps - level.noise * x0

    def decode(self, out: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
        return Prediction(level.signal * x_t - level.noise * out, level.signal * out + level.noise * x_t)


PARAMETERISATIONS: dict[str, Parameterisation] = {p.name: p for p in (Eps(), X0(), V())}


def parameterisation(name: str) -> Parameterisation:
    """The parameterisation of that name: eps, x0 or v.

    Raises:
        ValueError: any other name.
    """
    if name not in PARAMETERISATIONS:
        raise ValueError(f"unknown prediction {name!r}; choose one of {', '.join(PARAMETERISATIONS)}")
    return PARAMETERISATIONS[name]


def rederive(x0: Tensor, x_t: Tensor, level: AnyLevel) -> Prediction:
    """The pair that has this x0: eps = (x_t - signal * x0) / noise. Needs noise > 0, that is t >= 1."""
    return Prediction(x0, (x_t - level.signal * x0) / level.noise)
