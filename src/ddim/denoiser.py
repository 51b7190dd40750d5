"""Denoisers: x_t and t in, the pair (x0, eps) out. A denoiser carries the schedule it was trained with.

Extend by wrapping: a wrapper holds another denoiser, passes conditions on and returns consistent pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ddim.predict import Parameterisation, Prediction, parameterisation, rederive
from ddim.schedule import Level, Schedule

Network = Callable[..., Tensor]
"""network(x_t, label, **cond) -> (B, C or 2C, *); label (B,), by default int64 and 0-based (t - 1)."""


class Denoiser(Protocol):
    """What solvers call. t is one int for the whole batch, or int64 (B,), each in 0..T."""

    @property
    def schedule(self) -> Schedule: ...

    def __call__(self, x_t: Tensor, t: int | Tensor, **cond: Any) -> Prediction: ...


def level(schedule: Schedule, t: int | Tensor, like: Tensor) -> Level[float] | Level[Tensor]:
    """The level at t: floats for one int, (B, 1, ..) tensors for a batch of times."""
    return schedule.at(t) if isinstance(t, int) else schedule.at_batch(t, like)


def zero_based(t: Tensor) -> Tensor:
    """The label DDPM networks were trained with: t - 1; time 0, the clean image, shares the label of time 1."""
    return (t - 1).clamp(min=0)


class NetworkDenoiser:
    """A trained network and its schedule as a denoiser.

    Args:
        network: network(x_t, label, **cond) -> tensor. A module with floating parameters is fed their dtype.
        schedule: the one it was trained with.
        prediction: what it returns: "eps", "x0" or "v", or a `Parameterisation`.
        label: from our t (int64 (B,), 1..T) to the network's time input; default t - 1.
        learned_variance: the network returns 2C channels, of which the second C (the variance) are dropped.

    At t = 0 the image is clean: x0 is x_t itself and eps what the network says at its lowest label.

    Raises:
        ValueError: eps prediction on a zero-terminal-SNR schedule: eps at T does not tell x0.
    """

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        prediction: str | Parameterisation = "eps",
        *,
        label: Callable[[Tensor], Tensor] = zero_based,
        learned_variance: bool = False,
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.parameterisation = parameterisation(prediction) if isinstance(prediction, str) else prediction
        self.label = label
        self.learned_variance = learned_variance
        if schedule.has_zero_terminal_snr and self.parameterisation.name == "eps":
            raise ValueError(
                f"eps prediction cannot use a zero-terminal-SNR schedule: alpha_bar[{schedule.T}] = 0, so x0 = "
                "(x_T - eps) / 0; train with prediction 'v' or 'x0', or use the schedule without the rescaling"
            )

    def __call__(self, x_t: Tensor, t: int | Tensor, **cond: Any) -> Prediction:
        times = torch.full((len(x_t),), t, device=x_t.device) if isinstance(t, int) else t.to(x_t.device)
        dtype = _parameter_dtype(self.network) or x_t.dtype
        out = self.network(x_t.to(dtype), self.label(times), **cond).to(x_t.dtype)
        out = self._checked(out, x_t)
        if isinstance(t, int):
            if t > 0:
                return self.parameterisation.decode(out, x_t, self.schedule.at(t))
            return Prediction(x_t, self.parameterisation.decode(out, x_t, self.schedule.at(1)).eps)
        clean = (times == 0).view(-1, *([1] * (x_t.ndim - 1)))
        p = self.parameterisation.decode(out, x_t, self.schedule.at_batch(times.clamp(min=1), x_t))
        return Prediction(torch.where(clean, x_t, p.x0), p.eps)

    def _checked(self, out: Tensor, x_t: Tensor) -> Tensor:
        expected = x_t.shape if not self.learned_variance else (len(x_t), 2 * x_t.shape[1], *x_t.shape[2:])
        if out.shape != expected:
            hint = "; is it a learned-variance network?" if out.ndim > 1 and out.shape[1] == 2 * x_t.shape[1] else ""
            raise ValueError(f"the network returned {tuple(out.shape)} where {tuple(expected)} was expected{hint}")
        return out[:, : x_t.shape[1]] if self.learned_variance else out


def _parameter_dtype(network: Network) -> torch.dtype | None:
    if not isinstance(network, nn.Module):
        return None
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), None)


@dataclass(frozen=True)
class Bound:
    """A denoiser with its conditions (label, ...) filled in."""

    denoise: Denoiser
    cond: dict[str, Any]

    @property
    def schedule(self) -> Schedule:
        return self.denoise.schedule

    def __call__(self, x_t: Tensor, t: int | Tensor, **cond: Any) -> Prediction:
        return self.denoise(x_t, t, **{**self.cond, **cond})


@dataclass(frozen=True)
class Clip:
    """Clamp x0 into [low, high] and re-derive eps, so that the pair stays consistent."""

    denoise: Denoiser
    low: float = -1.0
    high: float = 1.0

    @property
    def schedule(self) -> Schedule:
        return self.denoise.schedule

    def __call__(self, x_t: Tensor, t: int | Tensor, **cond: Any) -> Prediction:
        p = self.denoise(x_t, t, **cond)
        return _replace_x0(p, p.x0.clamp(self.low, self.high), x_t, t, self.schedule)


@dataclass(frozen=True)
class DynamicThreshold:
    """Scale each image's x0 down when its `quantile` of |x0| exceeds 1 (Imagen, arXiv 2205.11487, section 2.3).

    x0 <- clamp(x0, -q, q) / q with q = clamp(quantile of |x0|, 1, maximum); eps is re-derived.
    """

    denoise: Denoiser
    quantile: float = 0.995
    maximum: float = float("inf")

    @property
    def schedule(self) -> Schedule:
        return self.denoise.schedule

    def __call__(self, x_t: Tensor, t: int | Tensor, **cond: Any) -> Prediction:
        p = self.denoise(x_t, t, **cond)
        q = torch.quantile(p.x0.abs().reshape(len(p.x0), -1).float(), self.quantile, dim=1).clamp(1.0, self.maximum)
        q = q.to(p.x0.dtype).view(-1, *([1] * (p.x0.ndim - 1)))
        return _replace_x0(p, p.x0.clamp(-q, q) / q, x_t, t, self.schedule)


def _replace_x0(p: Prediction, x0: Tensor, x_t: Tensor, t: int | Tensor, schedule: Schedule) -> Prediction:
    """The pair with this x0; at t = 0 (nothing to re-derive: x_t is the image) the pair is left as it is."""
    if isinstance(t, int):
        return rederive(x0, x_t, schedule.at(t)) if t > 0 else p
    clean = (t == 0).to(x_t.device).view(-1, *([1] * (x_t.ndim - 1)))
    new = rederive(x0, x_t, schedule.at_batch(t.clamp(min=1), x_t))
    return Prediction(torch.where(clean, p.x0, new.x0), torch.where(clean, p.eps, new.eps))
