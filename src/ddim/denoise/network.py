"""A trained network as a denoiser: what it is shown, with which label of time, and what its output means."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ddim.denoise.conditions import NONE, Conditions
from ddim.denoise.protocol import Denoiser, Digest
from ddim.process import LEARNED_VARIANCES, Parameterisation, Prediction, Process, Time, level_at, parameterisation
from ddim.refused import Refused

Network = Callable[..., Any]
"""network(x_t, label, **conditions) -> (B, C or 2C, *), or an object with that as `.sample`; label (B,), by default
int64 and 0-based (t - 1)."""

NEED_SIGNAL = ("eps", "score")  # predictions from which x0 is had by dividing by the signal


def zero_based(t: Tensor) -> Tensor:
    """The label DDPM networks were trained with: t - 1; time 0, the clean image, shares the label of time 1."""
    return (t - 1).clamp(min=0)


def real_time(t: Tensor) -> Tensor:
    """The label networks on continuous processes get unless told otherwise: t itself, float32."""
    return t.to(torch.float32)


class NetworkDenoiser(Denoiser):
    """A trained network and its process as a denoiser.

    Args:
        network: network(x_t, label, **conditions) -> tensor. A module with floating parameters is fed their dtype.
        process: the one it was trained on.
        prediction: what it returns: "eps", "x0", "v", "score", "velocity", "edm", or a `Parameterisation`.
        label: from our t ((B,), whole or real) to the network's time input; default t - 1 on a schedule, else t.
        learned_variance: the network returns 2C channels, the second C of them a variance: what they mean, one of
            `ddim.process.LEARNED_VARIANCES`; True where nobody knows, then they are dropped.

    At t = 0 the image is clean: x0 is x_t itself and eps what the network says at its cleanest time.

    Raises:
        Refused: eps or score prediction without signal: on a schedule that has none at T, or asked where there is none.
    """

    invertible = True

    def __init__(
        self,
        network: Network,
        process: Process,
        prediction: str | Parameterisation = "eps",
        *,
        label: Callable[[Tensor], Tensor] | None = None,
        learned_variance: bool | str = False,
    ) -> None:
        if learned_variance not in (True, False, *LEARNED_VARIANCES):
            names = ", ".join(LEARNED_VARIANCES)
            raise Refused(f"`learned_variance` is one of {names}, True or False; got {learned_variance!r}")
        self.network = network
        self.process = process
        self.parameterisation = parameterisation(prediction) if isinstance(prediction, str) else prediction
        self.label = label or (zero_based if process.discrete else real_time)
        self.learned_variance = learned_variance
        self._blind = self.parameterisation.name in NEED_SIGNAL and process.at(process.T).signal == 0.0
        if self._blind and process.discrete:
            raise Refused(
                f"{self.parameterisation.name} prediction cannot use a zero-terminal-SNR schedule: "
                f"alpha_bar[{process.T}] = 0, so x0 = "
                "(x_T - eps) / 0; train with prediction 'v' or 'x0', or use the schedule without the rescaling"
            )

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        conditions.check(len(x_t))
        if not isinstance(t, Tensor):
            asked = t if t > 0 else self.process.first
            dtype = torch.int64 if self.process.discrete else torch.float64
            times = torch.full((len(x_t),), t if self.process.discrete else asked, dtype=dtype, device=x_t.device)
            p = self._ask(x_t, times, asked, conditions)
            return p if t > 0 else p._replace(x0=x_t)
        times = t.to(x_t.device)
        clean = (times == 0).view(-1, *([1] * (x_t.ndim - 1)))
        asked = torch.where(times == 0, torch.full_like(times, self.process.first), times)
        p = self._ask(x_t, times if self.process.discrete else asked, asked, conditions)
        return p._replace(x0=torch.where(clean, x_t, p.x0))

    def pinned(self) -> NetworkDenoiser:
        """With the network of this moment, where the network is one that follows another (`engine.Current`)."""
        now = getattr(self.network, "now", None)
        if now is None:
            return self
        other = copy.copy(self)
        other.network = now()
        return other

    def _ask(self, x_t: Tensor, times: Tensor, asked: Time | Tensor, conditions: Conditions) -> Prediction:
        level = level_at(self.process, asked, x_t)
        if self._blind and bool((torch.as_tensor(level.signal) == 0.0).any()):
            raise Refused(
                f"{self.parameterisation.name} does not tell x0 where there is no signal, x0 = (x_t - eps) / 0; "
                f"begin below t = {self.process.T:g}, or use a network that predicts the velocity or x0"
            )
        shown = self.parameterisation.feed(x_t, level).to(_parameter_dtype(self.network) or x_t.dtype)
        said = self.network(shown, self.label(times), **conditions.arguments)
        out = (said if isinstance(said, Tensor) else said.sample).to(x_t.dtype)  # diffusers' networks return an object
        self._check(out, x_t)
        if torch.is_grad_enabled() and x_t.requires_grad and not out.requires_grad:
            raise Refused(
                "gradients were asked for, and this network's output does not depend on its input or hides it from "
                "gradients (an exported one always does); without them it can be sampled and encoded only"
            )
        p = self.parameterisation.decode(out[:, : x_t.shape[1]] if self.learned_variance else out, x_t, level)
        return p if self.variance is None else p._replace(variance=out[:, x_t.shape[1] :])

    def _check(self, out: Tensor, x_t: Tensor) -> None:
        expected = x_t.shape if not self.learned_variance else (len(x_t), 2 * x_t.shape[1], *x_t.shape[2:])
        if out.shape != expected:
            hint = "; is it a learned-variance network?" if out.ndim > 1 and out.shape[1] == 2 * x_t.shape[1] else ""
            raise Refused(f"the network returned {tuple(out.shape)} where {tuple(expected)} was expected{hint}")

    @property
    def variance(self) -> str | None:
        return self.learned_variance if isinstance(self.learned_variance, str) else None

    def identify(self, digest: Digest) -> None:
        network: Any = self.network
        if isinstance(network, nn.Module):
            digest.update(str(getattr(network, "sha256", "")).encode())  # an exported network's only parameters
            for parameter in network.parameters():
                digest.update(parameter.detach().float().cpu().numpy().tobytes())


def _parameter_dtype(network: Network) -> torch.dtype | None:
    if not isinstance(network, nn.Module):
        return None
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
