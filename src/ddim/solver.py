"""Solvers: one step from t to s as a method of a frozen object. What survives a step is the carry.

A solver owns no schedule (the denoiser carries it), no position and no tau.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor

from ddim import update
from ddim.denoiser import Denoiser

C = TypeVar("C")


class Solver(Protocol[C]):
    """One way to step. `order` is the measured order of convergence, `nfe` the network calls of a step."""

    @property
    def order(self) -> int: ...

    @property
    def nfe(self) -> int: ...

    @property
    def stochastic(self) -> bool:
        """Whether steps need fresh noise z (never on the step to s = 0, save with unmasked sigma-hat)."""
        ...

    def init(self) -> C:
        """The carry before the first step."""
        ...

    def step(self, denoise: Denoiser, x: Tensor, t: int, s: int, carry: C, z: Tensor | None) -> tuple[Tensor, C]:
        """x at t -> (x at s, carry). z is N(0, 1) noise like x, or None when the solver is not stochastic."""
        ...


@dataclass(frozen=True)
class DDIM:
    """The DDIM family (eq. 12 and 16): eta = 0 deterministic, eta = 1 DDPM.

    Args:
        eta: the paper's; any value up to the step's `update.eta_max`.
        sigma: in place of eta. "hat" is DDPM's "fixedlarge" with the paper's D.3 coefficients, its last
            noise (on the step to 0) masked as every program does; "hat-unmasked" is the formula to the
            letter; a mapping {t: std} gives the std of each step by the time it starts from.

    Raises:
        ValueError: eta below 0; eta together with sigma; an unknown name; a step without its std.
    """

    eta: float = 0.0
    sigma: Literal["hat", "hat-unmasked"] | Mapping[int, float] | None = None
    order: int = 1
    nfe: int = 1

    def __post_init__(self) -> None:
        if not self.eta >= 0.0:
            raise ValueError(f"eta must be at least 0, got {self.eta}")
        if self.sigma is not None and self.eta:
            raise ValueError(f"give eta = {self.eta} or sigma = {self.sigma!r}, not both")
        if isinstance(self.sigma, str) and self.sigma not in ("hat", "hat-unmasked"):
            raise ValueError(f"sigma is 'hat', 'hat-unmasked' or a mapping from t to std, got {self.sigma!r}")

    @property
    def stochastic(self) -> bool:
        if isinstance(self.sigma, Mapping):
            return any(self.sigma.values())
        return self.sigma is not None or self.eta > 0.0

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: int, s: int, carry: None, z: Tensor | None) -> tuple[Tensor, None]:
        at_t, at_s = denoise.schedule.at(t), denoise.schedule.at(s)
        p = denoise(x, t)
        if isinstance(self.sigma, str) and (s > 0 or self.sigma == "hat-unmasked"):
            return update.ddpm_fixedlarge(p, at_t, at_s, z=z), None
        if isinstance(self.sigma, Mapping) and s > 0:
            if t not in self.sigma:
                raise ValueError(f"sigma has no std for the step from t = {t}; it names {sorted(self.sigma)}")
            return update.ddim(p, at_t, at_s, std=self.sigma[t], z=z), None
        return update.ddim(p, at_t, at_s, eta=self.eta, z=z), None


@dataclass(frozen=True)
class Heun:
    """Heun's second-order step: the slope of DDIM's flow averaged over both ends (EDM, arXiv 2206.00364, algorithm 1).

    The flow is d(x/signal)/d(noise/signal) = eps (DDIM eq. 14), and, read from the other end,
    d(x/noise)/d(signal/noise) = x0. The first is used where signal >= noise, as in EDM; the second where noise is the
    larger, for there noise/signal runs away (to 2e4 on the cosine schedule, to infinity at zero terminal SNR) and a
    straight line in it fits nothing.
    Two calls a step; one (an Euler step, that is DDIM) on the step to s = 0, which networks never saw.
    """

    order: int = 2
    nfe: int = 2
    stochastic: bool = False

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: int, s: int, carry: None, z: Any) -> tuple[Tensor, None]:
        at_t, at_s = denoise.schedule.at(t), denoise.schedule.at(s)
        p = denoise(x, t)
        x_s = update.ddim(p, at_t, at_s)
        if s == 0:
            return x_s, None
        q = denoise(x_s, s)
        if at_t.signal < at_t.noise:
            return x_s + (at_s.signal - at_s.noise * at_t.signal / at_t.noise) * (q.x0 - p.x0) / 2, None
        return x_s + (at_s.noise - at_s.signal * at_t.noise / at_t.signal) * (q.eps - p.eps) / 2, None
