"""The probe of a checkpoint on a continuous process: whole readings compared, and each axis of its own by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ddim.checkpoints.probe.prepared import denoising_error
from ddim.checkpoints.probe.readings import RANGES, Reading, Tried, Verdict, clearly_below
from ddim.checkpoints.record import Checkpoint
from ddim.process import KINDS, PARAMETERISATIONS, USUAL, Schedule, TimeLabel, process_of, usual_unit_input
from ddim.refused import Refused

LABELS = (
    TimeLabel("time"), TimeLabel("time", 999.0), TimeLabel("time", 1000.0), TimeLabel("noise"),
    TimeLabel("log-sigma"), TimeLabel("log-sigma", 0.25),
)  # fmt: skip
OWN = "as the file says"
Option = tuple[str, str, Checkpoint]  # axis, the option in words, the checkpoint read so


def options(k: Checkpoint) -> Iterator[Option]:
    """Readings that differ from the file's in one thing alone, then another process with all that is usual there."""
    for prediction in PARAMETERISATIONS:
        if prediction != k.prediction:
            scaled = k.unit_input and prediction != "edm"
            yield "prediction", prediction, replace(k, prediction=prediction, time_label=k.label, unit_input=scaled)
    for label in LABELS:
        if label != k.label:
            yield "network's time", str(label), replace(k, time_label=label)
    if k.prediction != "edm":
        words = "x_t itself" if k.unit_input else "x_t at unit variance"
        yield "network is shown", words, replace(k, unit_input=not k.unit_input)
    for name, ends in RANGES.items():
        if ends != k.data_range:
            yield "data range", name, replace(k, data_range=ends)
    for kind in KINDS:
        for prediction in dict.fromkeys((USUAL[kind].prediction, k.prediction)):
            unit = usual_unit_input(kind, prediction)
            read = replace(
                k, process=process_of(kind), prediction=prediction, time_label=None, unit_input=unit, data_std=0.5
            )
            if (read.process, read.prediction, read.label, read.unit_input) != _meaning(k):
                yield "process", f"{read.process.name}, {prediction}, told {read.label}", read
    for prediction in ("eps", "v", "x0"):
        ddpm = replace(k, process=Schedule.linear(1000), prediction=prediction, time_label=None, unit_input=False)
        yield "process", f"ddpm, {prediction}, told t - 1", ddpm


def probe_real(k: Checkpoint, images: Tensor, seed: int) -> Verdict:
    """See `probe_checkpoint`: which reading fits best, and a warning where it is clearly not the file's."""
    own = denoising_error(k, images, seed)
    if bool((own >= math.log(1e11)).any()):
        raise Refused(f"{k.source} answers real images with NaN or infinity")
    tried: list[tuple[Option, Tensor]] = []
    for option in options(k):
        try:
            tried.append((option, denoising_error(option[2], images, seed)))
        except Refused:
            continue  # a reading that no network can have, such as a score where there is no signal
    better = [(o, e) for o, e in tried if clearly_below(e, own)]
    (best, error) = min(better, key=lambda pair: float(pair[1].mean())) if better else (("", OWN, k), own)
    rows = [Tried("process", f"{k.process.name}, {k.prediction}: {OWN}", _shown(own), True, not better)]
    rows += [Tried(o[0], o[1], _shown(e), False, bool(better) and o is best) for o, e in tried]
    warnings = (
        (f"the weights fit {best[0]} {best[1]} (error {_shown(error):.3g}), not what the file says "
         f"({k.process.name}, {k.prediction}, told {k.label}: error {_shown(own):.3g})",)
        if better else ()
    )  # fmt: skip
    return Verdict(tuple(rows), _reading(k), _reading(best[2]), warnings, len(images))


def _meaning(k: Checkpoint) -> tuple[object, ...]:
    return k.process, k.prediction, k.label, k.unit_input


def _shown(logs: Tensor) -> float:
    return math.exp(float(torch.nan_to_num(logs, nan=27.0).mean()))


def _reading(k: Checkpoint) -> Reading:
    return Reading(k.process.name, k.prediction, k.time_scale, 0, "{:g}..{:g}".format(*k.data_range), "RGB")
