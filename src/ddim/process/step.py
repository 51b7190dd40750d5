"""The step of the DDIM family: from x_t to x_s, a pure function of both end levels, for every process.

With a = signal, b = noise and r = a_t/a_s, x_t given x_s has the mean r x_s and the variance b_t^2 - r^2 b_s^2; the
paper's formulas are those of a^2 + b^2 = 1. sigma depends on (t, s), not on the training beta_t.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt

import torch
from torch import Tensor

from ddim.process.level import AnyLevel, Level
from ddim.process.prediction import Prediction, rederive
from ddim.refused import Refused

PerImage = float | Sequence[float]
"""One number for all images, or one an image."""

LEARNED_VARIANCES = ("learned_range", "learned")
"""What a network's second C channels may mean, by diffusers' names: see `learned_std`."""
ROUNDING = 1e-12  # relative slack for a sigma that meets its bound exactly, as eta = 1 does with zero terminal SNR


def sigma(at_t: Level[float], at_s: Level[float], eta: float) -> float:
    """std of the injected noise, eta (b_s/b_t) sqrt(b_t^2 - (a_t/a_s)^2 b_s^2) (DDIM eq. 16 for any process).

    eta = 0 is DDIM, eta = 1 DDPM ("fixedsmall"): the posterior's mean and variance. 0.5 injects exactly half of DDPM's
    std. Zero when s is the clean image.

    Raises:
        Refused: eta < 0, or eta > 0 on a step towards more noise (inversion is deterministic).
    """
    if not eta >= 0.0:
        raise Refused(f"eta must be at least 0, got {eta}")
    if eta == 0.0:
        return 0.0
    return eta * (at_s.noise / at_t.noise) * sigma_hat(at_t, at_s)


def sigma_hat(at_t: Level[float], at_s: Level[float]) -> float:
    """std sqrt(b_t^2 - (a_t/a_s)^2 b_s^2) of x_t given x_s: DDPM's larger choice, "fixedlarge" (DDIM appendix D.3).

    Raises:
        Refused: on a step towards more noise.
    """
    if at_s.noise * at_t.signal > at_t.noise * at_s.signal:
        raise Refused(
            "noise can only be injected on a step towards the clean image, but alpha_bar goes from "
            f"{at_t.alpha_bar:.6g} to {at_s.alpha_bar:.6g}, noise from {at_t.noise:.6g} to {at_s.noise:.6g}; "
            "use eta = 0 to encode"
        )
    r = at_t.signal / at_s.signal
    return sqrt(max(0.0, at_t.noise**2 - (r * at_s.noise) ** 2))


def eta_max(at_t: Level[float], at_s: Level[float]) -> float:
    """The largest legal eta of a step: where sigma reaches noise_s. At least 1; inf when s is the clean image."""
    std = sigma(at_t, at_s, 1.0)
    return at_s.noise / std if std > 0.0 else float("inf")


def ddim_step(
    p: Prediction,
    at_t: Level[float],
    at_s: Level[float],
    *,
    eta: PerImage = 0.0,
    std: PerImage | None = None,
    z: Tensor | None = None,
) -> Tensor:
    """x_s = signal_s x0 + sqrt(noise_s^2 - std^2) eps + std z (DDIM eq. 12), std from eq. 16 unless given.

    With std = 0 and s above t this is the published inversion step.

    Args:
        p: the predicted pair at x_t, each (B, *).
        at_t, at_s: the levels of both ends of the step.
        eta: the paper's eta, from 0 to `eta_max`; one for all images, or one an image.
        std: any legal std of injected noise, in place of eta; likewise.
        z: fresh N(0, 1) noise (B, *); needed when the std is not 0.

    Raises:
        Refused: std above noise_s, with both numbers; noise needed and not given.
    """
    if isinstance(eta, Sequence) or isinstance(std, Sequence):
        return _each(p, at_t, at_s, eta, std, z)
    std = sigma(at_t, at_s, eta) if std is None else std
    x_s = at_s.signal * p.x0 + _direction(std, at_s, eta) * p.eps  # eq. 12
    return x_s if std == 0.0 else x_s + std * _given(z)


def _each(
    p: Prediction, at_t: Level[float], at_s: Level[float], eta: PerImage, std: PerImage | None, z: Tensor | None
) -> Tensor:
    """The step where every image has a std of its own."""
    given = eta if std is None else std
    values = list(given) if isinstance(given, Sequence) else [given] * len(p.x0)
    if len(values) != len(p.x0):
        raise Refused(f"{len(p.x0)} images need one eta or sigma each, or one for all; got {len(values)}")
    stds = [sigma(at_t, at_s, v) for v in values] if std is None else values
    shape = (-1, *([1] * (p.x0.ndim - 1)))
    directions = [_direction(v, at_s, 0.0) for v in stds]
    std_each, direction = (torch.tensor(v, dtype=torch.float64).view(shape).to(p.x0) for v in (stds, directions))
    x_s = at_s.signal * p.x0 + direction * p.eps
    return x_s + std_each * _given(z) if any(stds) else x_s


def fixedlarge_step(p: Prediction, at_t: Level[float], at_s: Level[float], *, z: Tensor | None = None) -> Tensor:
    """One step with sigma-hat: eq. 12's mean under sigma(eta = 1), noise sigma_hat (DDIM appendix D.3).

    sigma_hat exceeds the legal std, so it never enters the square root; the marginals are not kept.
    """
    return _posterior_mean(p, at_t, at_s) + sigma_hat(at_t, at_s) * _given(z)


def learned_step(
    p: Prediction, at_t: Level[float], at_s: Level[float], kind: str | None, *, z: Tensor | None = None
) -> Tensor:
    """One step of DDPM (eta = 1) with the std that the network says, see `learned_std`; no noise on the last one.

    Args:
        p: the predicted pair with its `variance`, each (B, *).
        kind: what that means: one of `LEARNED_VARIANCES`.

    Raises:
        Refused: the network says no variance; noise needed and not given.
    """
    mean = _posterior_mean(p, at_t, at_s)
    if at_s.noise == 0.0:
        return mean
    if p.variance is None or kind is None:
        raise Refused("a step with the learned variance needs a network that predicts one, and this one does not")
    return mean + learned_std(p.variance, kind, at_t, at_s) * _given(z)


def learned_std(said: Tensor, kind: str, at_t: Level[float], at_s: Level[float]) -> Tensor:
    """std of the injected noise as a network says it (Nichol & Dhariwal, arXiv 2102.09672, eq. 15), (B, *).

    "learned_range": log std^2 = f log beta + (1 - f) log beta_tilde with f = (said + 1)/2, not clamped; beta and
    beta_tilde are `sigma_hat` and `sigma` (eta = 1), squared, of this very step, also where it skips times.
    "learned": said is std^2 itself, as diffusers has it.

    Args:
        said: the network's own numbers, (B, *).
        at_t, at_s: the levels of both ends of the step; s above the clean image.

    Raises:
        Refused: another kind; a "learned" variance below 0.
    """
    if kind == "learned":
        if bool((said < 0.0).any()):
            raise Refused(f"the network says a variance of {float(said.min()):.3g}, below 0: it is no learned variance")
        return said.sqrt()
    if kind != "learned_range":
        raise Refused(f"a learned variance is one of {', '.join(LEARNED_VARIANCES)}, got {kind!r}")
    small, large = log(sigma(at_t, at_s, 1.0)), log(sigma_hat(at_t, at_s))
    return torch.exp(small + (said + 1.0) * ((large - small) / 2.0))


def _posterior_mean(p: Prediction, at_t: Level[float], at_s: Level[float]) -> Tensor:
    """Eq. 12's mean under sigma(eta = 1): the posterior's."""
    return at_s.signal * p.x0 + _direction(sigma(at_t, at_s, 1.0), at_s, 1.0) * p.eps


def landing(x_s: Tensor, x_t: Tensor, at_t: AnyLevel, at_s: AnyLevel) -> Prediction:
    """The pair at x_t whose one DDIM step (eq. 12, eta = 0) from t lands at x_s: that step, solved for x0.

    x0 = (x_s - (b_s/b_t) x_t) / (a_s - (b_s/b_t) a_t), eps = (x_t - a_t x0) / b_t (progressive distillation, arXiv
    2202.00512, algorithm 2, in any process's a = signal, b = noise). With s the clean image x0 is x_s.

    Args:
        x_s, x_t: the two ends of a step, (B, *).
        at_t, at_s: their levels, one for all or (B, 1, ..); the noise at t is above 0.
    """
    k = at_s.noise / at_t.noise
    return rederive((x_s - k * x_t) / (at_s.signal - k * at_t.signal), x_t, at_t)


def _direction(std: float, at_s: Level[float], eta: float) -> float:
    """sqrt(noise_s^2 - std^2), the weight of "the direction pointing to x_t"."""
    if std == 0.0:
        return at_s.noise
    if not 0.0 < std <= at_s.noise * (1.0 + ROUNDING):
        hint = f" (eta = {eta})" if eta else ""
        raise Refused(
            f"sigma = {std:.6g}{hint} is not between 0 and sqrt(1 - alpha_bar_s) = {at_s.noise:.6g} (the noise at s), "
            "the largest std this step can inject; lower eta or sigma"
        )
    return sqrt(max(0.0, at_s.noise**2 - std**2))


def _given(z: Tensor | None) -> Tensor:
    if z is None:
        raise Refused("this step injects noise (its sigma is above 0): give z, or seeds to `sample`")
    return z
