"""What is usual on each continuous process: the prediction, the label of time, the times trained on, the spacing.

Each row is how the paper of that process trains: vp and subvp (arXiv 2011.13456, appendix C), ve (the same, NCSN++),
edm (arXiv 2206.00364, table 1), flow (arXiv 2210.02747; the label is diffusers').
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ddim.process.continuous import Continuous
from ddim.process.level import Process
from ddim.process.timelabel import TimeLabel
from ddim.refused import Refused

DRAWS = ("uniform", "lognormal", "levels")
LOG_MEAN, LOG_STD = -1.2, 1.2  # EDM's log-normal law of sigma
UNSCALED = ("edm", "score")  # predictions whose networks see x_t at their own scale


@dataclass(frozen=True)
class Usual:
    """prediction, label of time, law of the times trained on, spacing of a walk; see the module's text."""

    prediction: str
    label: TimeLabel
    draws: str
    spacing: str
    preserving: bool


USUAL = {
    "vp": Usual("eps", TimeLabel("time", 999.0), "uniform", "uniform", True),
    "subvp": Usual("eps", TimeLabel("time", 999.0), "uniform", "uniform", True),
    "ve": Usual("score", TimeLabel("log-sigma", 0.25), "uniform", "uniform", False),
    "edm": Usual("edm", TimeLabel("log-sigma", 0.25), "lognormal", "edm", False),
    "flow": Usual("velocity", TimeLabel("time", 1000.0), "uniform", "uniform", True),
}
BY_NOISE = TimeLabel("noise")
"""Networks that return a score divide by the noise they are told (NCSN++'s `scale_by_sigma`), on every process."""


def usual_label(kind: str, prediction: str) -> TimeLabel:
    """What a network of that kind of process with that prediction is told of time."""
    return BY_NOISE if prediction == "score" else USUAL[kind].label


def usual_unit_input(kind: str, prediction: str) -> bool:
    """Whether it is shown x_t at unit variance: where x_t grows with the noise, unless the prediction scales it."""
    return not USUAL[kind].preserving and prediction not in UNSCALED


def usual_spacing(process: Process) -> str:
    """Even steps in what suits the process: t, or EDM's (noise/signal)^(1/7) where t is the noise."""
    known = USUAL.get(process.kind) if isinstance(process, Continuous) else None
    return "uniform" if known is None else known.spacing


def draw_times(process: Process, law: str, levels: int, g: np.random.Generator, n: int) -> Tensor:
    """Times to train on, (n,): whole ones 1..T of a schedule, else float64 in first..T.

    Args:
        law: "uniform" in t; "lognormal": log(noise/signal) ~ N(-1.2, 1.2^2) (EDM), kept within first..T, of a schedule
            the nearest time; "levels": `levels` times evenly from first to T, on ve NCSN's geometric noise levels
            (arXiv 1907.05600), of continuous processes alone.

    Raises:
        Refused: an unknown law, or levels of a schedule.
    """
    first, last = process.first, process.T
    if process.discrete and law == "uniform":
        return torch.from_numpy(g.integers(1, int(last) + 1, size=n))
    if process.discrete and law == "levels":
        raise Refused("a schedule's times are its levels: draw them uniform or lognormal")
    if law == "uniform":
        t = first + (last - first) * g.random(n)
    elif law == "levels":
        t = first + (last - first) * g.integers(0, levels, size=n) / max(levels - 1, 1)
    elif law == "lognormal":
        ratios = np.exp(LOG_MEAN + LOG_STD * g.standard_normal(n))
        at = process.at(last)
        top = at.noise / at.signal if at.signal > 0.0 else math.inf
        t = np.array([max(first, process.time_of(float(r))) if r < top else last for r in ratios])
    else:
        raise Refused(f"unknown law of times {law!r}; choose one of {', '.join(DRAWS)}")
    return torch.from_numpy(np.rint(t).astype(np.int64) if process.discrete else t)
