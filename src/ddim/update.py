"""The step of the DDIM family: from x_t to x_s, a pure function of both end points.

The paper's sigma depends on (t, s), not on the training beta_t: beta here is always that of the
sub-sequence, 1 - alpha_bar_t / alpha_bar_s.
"""

from __future__ import annotations

from math import sqrt
from typing import Protocol

from torch import Tensor

from ddim.schedule import Level

ROUNDING = 1e-12  # relative slack for a sigma that meets its bound exactly, as eta = 1 does with zero terminal SNR


class Pair(Protocol):
    """Anything with x0 and eps, each (B, *): a `predict.Prediction`."""

    @property
    def x0(self) -> Tensor: ...

    @property
    def eps(self) -> Tensor: ...


def sigma(at_t: Level[float], at_s: Level[float], eta: float) -> float:
    """std of the injected noise, eta * sqrt((1-a_s)/(1-a_t)) * sqrt(1 - a_t/a_s), a = alpha_bar (DDIM eq. 16).

    eta = 0 is DDIM, eta = 1 DDPM ("fixedsmall"); 0.5 injects exactly half of DDPM's std. Zero when s = 0.

    Raises:
        ValueError: eta < 0, or eta > 0 on a step towards more noise (inversion is deterministic).
    """
    if not eta >= 0.0:
        raise ValueError(f"eta must be at least 0, got {eta}")
    if eta == 0.0:
        return 0.0
    return eta * (at_s.noise / at_t.noise) * sigma_hat(at_t, at_s)


def sigma_hat(at_t: Level[float], at_s: Level[float]) -> float:
    """std sqrt(1 - a_t/a_s), a = alpha_bar: DDPM's larger choice, "fixedlarge" (DDIM appendix D.3).

    Raises:
        ValueError: on a step towards more noise.
    """
    if at_s.signal < at_t.signal:
        raise ValueError(
            "noise can only be injected on a step towards the clean image, but alpha_bar goes from "
            f"{at_t.alpha_bar:.6g} to {at_s.alpha_bar:.6g}; use eta = 0 to encode"
        )
    return sqrt(1.0 - (at_t.signal / at_s.signal) ** 2)


def eta_max(at_t: Level[float], at_s: Level[float]) -> float:
    """The largest legal eta of a step: where sigma reaches sqrt(1 - alpha_bar_s). At least 1; inf when s = 0."""
    std = sigma(at_t, at_s, 1.0)
    return at_s.noise / std if std > 0.0 else float("inf")


def ddim(
    p: Pair,
    at_t: Level[float],
    at_s: Level[float],
    *,
    eta: float = 0.0,
    std: float | None = None,
    z: Tensor | None = None,
) -> Tensor:
    """x_s = signal_s x0 + sqrt(noise_s^2 - std^2) eps + std z (DDIM eq. 12), std from eq. 16 unless given.

    With std = 0 and s above t this is the published inversion step.

    Args:
        p: the predicted pair at x_t, each (B, *).
        at_t, at_s: the levels of both ends of the step.
        eta: the paper's eta, from 0 to `eta_max`.
        std: any legal std of injected noise, in place of eta.
        z: fresh N(0, 1) noise (B, *); needed when the std is not 0.

    Raises:
        ValueError: std above sqrt(1 - alpha_bar_s), with both numbers; noise needed and not given.
    """
    std = sigma(at_t, at_s, eta) if std is None else std
    x_s = at_s.signal * p.x0 + _direction(std, at_s, eta) * p.eps  # eq. 12
    return x_s if std == 0.0 else x_s + std * _given(z)


def ddpm_fixedlarge(p: Pair, at_t: Level[float], at_s: Level[float], *, z: Tensor | None = None) -> Tensor:
    """One step with sigma-hat: eq. 12's mean under sigma(eta = 1), noise sigma_hat (DDIM appendix D.3).

    sigma_hat exceeds the legal std, so it never enters the square root; the marginals are not kept.
    """
    std = sigma(at_t, at_s, 1.0)
    mean = at_s.signal * p.x0 + _direction(std, at_s, 1.0) * p.eps
    return mean + sigma_hat(at_t, at_s) * _given(z)


def _direction(std: float, at_s: Level[float], eta: float) -> float:
    """sqrt(1 - alpha_bar_s - std^2), the weight of "the direction pointing to x_t"."""
    if std == 0.0:
        return at_s.noise
    if not 0.0 < std <= at_s.noise * (1.0 + ROUNDING):
        hint = f" (eta = {eta})" if eta else ""
        raise ValueError(
            f"sigma = {std:.6g}{hint} is not between 0 and sqrt(1 - alpha_bar_s) = {at_s.noise:.6g}, "
            "the largest std this step can inject; lower eta or sigma"
        )
    return sqrt(max(0.0, at_s.noise**2 - std**2))


def _given(z: Tensor | None) -> Tensor:
    if z is None:
        raise ValueError("this step injects noise (its sigma is above 0): give z, or seeds to `sample`")
    return z
