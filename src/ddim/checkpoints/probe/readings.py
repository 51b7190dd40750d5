"""The ways a checkpoint can be read, an option on each axis, and what comparing them found: see `probe_checkpoint`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ddim.checkpoints.families import like, named_schedule
from ddim.process import Schedule

LEVELS = (0.98, 0.9, 0.7, 0.4, 0.15, 0.04)  # alpha_bar of the noised images
ERRORS, SHARE = 3.0, 0.02  # standard errors, and a share of the error: what counts as a difference
SHARES = {"time offset": 0.004}  # one step of many changes little; elsewhere a fault costs 2% and more
RANGES = {"-1..1": (-1.0, 1.0), "0..1": (0.0, 1.0)}
AXES = ("schedule", "prediction", "time scale", "time offset", "data range", "channel order")


@dataclass(frozen=True)
class Reading:
    """One way to read the weights, an option on each axis."""

    schedule: str
    prediction: str
    time_scale: float
    time_offset: int
    data_range: str
    channel_order: str

    def option(self, axis: str) -> str:
        """The option on an axis, in words."""
        value = getattr(self, axis.replace(" ", "_"))
        if axis == "time scale":
            return f"{value:g}"
        return {0: "0-based (t - 1)", 1: "1-based (t)"}[value] if axis == "time offset" else str(value)


@dataclass(frozen=True)
class Tried:
    """One line of the report: the error (geometric mean of the squared error of eps) with this option, others best."""

    axis: str
    option: str
    error: float
    said: bool
    best: bool


@dataclass(frozen=True)
class Verdict:
    """What the probe found. `fits`: the file's reading is the best on every axis, or as good."""

    rows: tuple[Tried, ...]
    said: Reading
    best: Reading
    warnings: tuple[str, ...]
    images: int

    @property
    def fits(self) -> bool:
        return not self.warnings


def clearly_below(candidate: Tensor, current: Tensor, axis: str = "") -> bool:
    """Whether these log errors, image by image, are smaller by the axis's share and by three standard errors.

    Args:
        candidate, current: (N,), N of 2 or more.
        axis: of `AXES`, the one on which two readings differ.
    """
    gain = current - candidate
    spread = float(gain.std(unbiased=True)) / math.sqrt(len(gain))
    return float(gain.mean()) > max(SHARES.get(axis, SHARE), ERRORS * spread)


def nearest(schedule: Schedule, alpha_bar: float, gain: float) -> int:
    """The t whose SNR, times the gain of the data range, is nearest to that of alpha_bar."""
    a = schedule.alpha_bar[1:].clamp(1e-12, 1 - 1e-12)
    wanted = math.log(alpha_bar / (1 - alpha_bar) / gain)
    return 1 + int((torch.log(a / (1 - a)) - wanted).abs().argmin())


def schedules(own: Schedule) -> Mapping[str, Schedule]:
    """The file's schedule under "as given", and the common ones that differ from it."""
    T = own.T
    common = {
        "linear": Schedule.linear(T, beta_start=0.1 / T, beta_end=min(20.0 / T, 0.999)),
        "cosine": Schedule.cosine(T),
        "scaled_linear": Schedule.scaled_linear(T, beta_start=0.85 / T, beta_end=min(12.0 / T, 0.999)),
        "sigmoid": named_schedule("sigmoid", T),
    }
    names = {"as given": own}
    for name, schedule in common.items():
        if not like(schedule, own):
            names[name] = schedule
    return names
