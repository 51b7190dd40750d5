"""The options that say on which process a network is trained, and what it learns to return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OfProcess:
    """A process and what is usual on it."""

    process: Literal["ddpm", "vp", "subvp", "ve", "edm", "flow"] = "ddpm"
    """How images drown in noise: ddpm, a schedule of whole times, or a continuous process: variance preserving,
    sub-preserving or exploding (score SDEs), EDM's, or a straight flow."""
    prediction: Literal["eps", "x0", "v", "score", "velocity", "edm"] | None = None
    """What the network learns to return. Default: what --init returns, or what is usual on the process: v on ddpm, eps
    on vp and subvp, score on ve, edm on edm, velocity on flow."""
    draws: Literal["uniform", "lognormal", "levels"] | None = None
    """Which times of a continuous process are trained on: evenly in t, EDM's log-normal law of the noise, or NCSN's
    232 levels. Default: lognormal on edm, else uniform."""
    sigma_min: float | None = None
    """The least noise of ve (0.01) or edm (0.002)."""
    sigma_max: float | None = None
    """The most noise of ve (50) or edm (80)."""
    data_std: float | None = None
    """The standard deviation of the data that the prediction edm is scaled by. Default: 0.5, and 1 in latents."""
