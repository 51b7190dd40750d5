"""The probe: do the weights fit what the file says about them?

Real images are noised to a few levels and denoised under every reading of the checkpoint: schedule, prediction,
scale and offset of the network's time, data range, channel order. Only the right reading tells the network the
truth, so it has the smallest error. Readings are compared at equal signal-to-noise ratio on the same images and
the same noise, image by image; a difference counts when it is three standard errors and 2% or more (time offset: 0.4%).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ddim.checkpoints.probe.readings import (
    AXES,
    LEVELS,
    RANGES,
    Reading,
    Tried,
    Verdict,
    clearly_below,
    nearest,
    schedules,
)
from ddim.checkpoints.probe.real import probe_real
from ddim.checkpoints.probe.remedies import remedy
from ddim.checkpoints.probe.tables import free_time
from ddim.checkpoints.record import Checkpoint
from ddim.process import PARAMETERISATIONS, Level, noise
from ddim.refused import Refused

PREDICTIONS = ("eps", "x0", "v")  # what networks on a schedule were seen to return

FIRST = (1, 2, 3, 4)  # where a time that is off by one shows: the noise of neighbours differs most
WORST = 1e12  # what an error that is no number counts as
UNTRIED = " (others untried: an exported network takes no other times)"


@torch.no_grad()
def probe_checkpoint(checkpoint: Checkpoint, images: Tensor, *, labels: Tensor | None = None, seed: int = 0) -> Verdict:
    """Compare readings of a checkpoint on real images.

    Args:
        checkpoint: as the file says it is.
        images: float (N, C, H, W) in [-1, 1], RGB; 8 to 64 of them do.
        labels: int64 (N,), for class-conditional networks; without them the null label, or class 0.
        seed: of the noise.

    Raises:
        Refused: images of another shape, fewer than 4, or outside [-1, 1].
    """
    if checkpoint.autoencoder is not None:
        raise Refused(f"{checkpoint.source} walks in an autoencoder's latents; the probe is for models of pixels")
    if tuple(images.shape[1:]) != tuple(checkpoint.shape) or len(images) < 4:
        raise Refused(f"the probe needs at least 4 images of {checkpoint.shape}, got {tuple(images.shape)}")
    if float(images.abs().max()) > 1.001:
        raise Refused(f"the probe needs images in [-1, 1], got up to {float(images.abs().max()):.4g}")
    if not checkpoint.process.discrete:
        return probe_real(checkpoint, images, seed)
    device = next((p.device for p in checkpoint.network.parameters()), torch.device("cpu"))
    with free_time(checkpoint.adapter) as scale:
        time_scale = checkpoint.time_scale if scale is None else scale
        bench = _Bench(checkpoint, time_scale, images.float().to(device), labels, seed)
        best = bench.search()
        if bool((bench.score(best, "schedule") >= math.log(WORST)).any()):
            raise Refused(f"{checkpoint.source} answers real images with NaN or infinity, however its file is read")
        return bench.report(best)


@dataclass
class _Bench:
    """The images, the noise, and every error measured so far."""

    checkpoint: Checkpoint
    time_scale: float
    images: Tensor
    labels: Tensor | None
    seed: int
    cache: dict[tuple[Any, ...], dict[str, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.eps = noise(range(self.seed, self.seed + len(self.images)), self.images.shape[1:], purpose="probe")
        self.eps = self.eps.to(self.images)
        self.schedules = schedules(self.checkpoint.schedule)
        k = self.checkpoint
        self.is_table = k.adapter is not None and k.adapter.time_table is not None
        self.is_exported = k.exported is not None
        self.ranges = dict(RANGES)
        own = next((n for n, r in RANGES.items() if r == k.data_range), "{:g}..{:g}".format(*k.data_range))
        self.ranges[own] = k.data_range
        self.said = Reading("as given", k.prediction, self.time_scale, 0, own, "RGB")

    def options(self, axis: str) -> list[Any]:
        """Every option worth trying on an axis, the file's first."""
        T, own = self.checkpoint.schedule.T, self.time_scale
        if axis == "schedule":
            return list(self.schedules)
        if axis == "prediction":
            return list(PREDICTIONS)
        if axis == "time scale":
            scales = [own, 1.0, 1000.0 / T, 4.0, 0.25, 1.0 / T]
            return [own] if self.is_table or self.is_exported else list(dict.fromkeys(round(s, 9) for s in scales))
        if axis == "time offset":
            return [0] if self.is_exported else [0, 1]
        if axis == "data range":
            return list(self.ranges)
        return ["RGB", "BGR"] if self.images.shape[1] == 3 else ["RGB"]

    def with_option(self, reading: Reading, axis: str, option: Any) -> Reading:
        return replace(reading, **{axis.replace(" ", "_"): option})

    def score(self, reading: Reading, axis: str) -> Tensor:
        """log of the squared error of eps, mean over levels; (N,), one an image."""
        first = axis == "time offset"
        key = (
            *(getattr(reading, f) for f in ("schedule", "time_scale", "time_offset", "data_range", "channel_order")),
            first,
        )
        if key not in self.cache:
            self.cache[key] = self._measure(reading, first)
        return self.cache[key][reading.prediction]

    def _measure(self, reading: Reading, first: bool) -> dict[str, Tensor]:
        """The scores under every prediction: the network's answer is the same, only its meaning changes."""
        low, high = self.ranges[reading.data_range]
        schedule = self.schedules[reading.schedule]
        x0 = self.images if reading.channel_order == "RGB" else self.images.flip(1)
        x0 = (x0 + 1) / 2 * (high - low) + low
        gain = ((high - low) / 2) ** 2  # a narrower range has less signal at the same alpha_bar
        times = [t for t in FIRST if t <= schedule.T] if first else [nearest(schedule, a, gain) for a in LEVELS]
        logs: dict[str, list[Tensor]] = {name: [] for name in PREDICTIONS}
        for t in times:
            at = schedule.at(t)
            x_t = at.signal * x0 + at.noise * self.eps
            out = self._network(x_t, t, reading)
            for name in PREDICTIONS:
                logs[name].append(self._log_error(name, out, x_t, at))
        return {name: torch.stack(values).mean(0).double().cpu() for name, values in logs.items()}

    def _log_error(self, name: str, out: Tensor, x_t: Tensor, at: Level[float]) -> Tensor:
        pair = PARAMETERISATIONS[name].decode(out, x_t, at)
        error = (pair.eps - self.eps).square().flatten(1).mean(1)
        return torch.nan_to_num(error, nan=WORST, posinf=WORST).clamp(1e-12, WORST).log()

    def _network(self, x_t: Tensor, t: int, reading: Reading) -> Tensor:
        k = self.checkpoint
        value = (t - 1 + reading.time_offset) * reading.time_scale
        if self.is_exported:  # its file fixes the number type of its times too: int64, or float32 where they are scaled
            label = k.time(torch.full((len(x_t),), t))
        elif value == int(value):
            label = torch.full((len(x_t),), int(value), device=x_t.device)
            label = label.clamp(max=k.schedule.T - 1) if self.is_table else label
        else:
            label = torch.full((len(x_t),), value, device=x_t.device, dtype=torch.float32)
        out: Tensor = k.network(x_t, label, self._classes())
        return out[:, : x_t.shape[1]]

    def _classes(self) -> Tensor | None:
        k = self.checkpoint
        if k.num_classes is None:
            return None
        if self.labels is not None:
            return self.labels.to(self.images.device)
        return (
            None
            if k.null_label is not None
            else torch.zeros(len(self.images), dtype=torch.int64, device=self.images.device)
        )

    def search(self) -> Reading:
        """The reading with the smallest error; the file's own wherever it is as good.

        One axis at a time first. Only if that finds fault are schedule, time and range tried in all
        combinations: two wrong ones can look right together.
        """
        if not any(
            clearly_below(self.score(r, axis), self.score(self.said, axis), axis) for r, axis in self.neighbours()
        ):
            return self.said
        best = self.best_of([self.with_option(self.said, "channel order", o) for o in self.options("channel order")])
        joint = ("schedule", "time scale", "data range")
        every = itertools.product(*(self.options(axis) for axis in joint))
        fields = [axis.replace(" ", "_") for axis in joint]
        best = self.best_of([replace(best, **dict(zip(fields, options, strict=True))) for options in every])
        best = self.best_of([self.with_option(best, "channel order", o) for o in self.options("channel order")])
        shifted = self.with_option(best, "time offset", 1)
        if clearly_below(self.score(shifted, "time offset"), self.score(best, "time offset"), "time offset"):
            best = shifted
        for axis in AXES:
            own = self.with_option(best, axis, getattr(self.said, axis.replace(" ", "_")))
            best = best if clearly_below(self.score(best, axis), self.score(own, axis), axis) else own
        return best

    def neighbours(self) -> Iterator[tuple[Reading, str]]:
        """Readings that differ from the file's on one axis."""
        for axis in AXES:
            for option in self.options(axis)[0 if axis == "prediction" else 1 :]:
                yield self.with_option(self.said, axis, option), axis

    def best_of(self, readings: list[Reading]) -> Reading:
        """The smallest error among these, under any prediction (that costs nothing: the answers are kept)."""
        every = [replace(r, prediction=name) for r in readings for name in PREDICTIONS]
        return min(every, key=lambda r: float(self.score(r, "schedule").mean()))

    def report(self, best: Reading) -> Verdict:
        rows, warnings = [], []
        for axis in AXES:
            scores = {o: self.score(self.with_option(best, axis, o), axis) for o in self.options(axis)}
            chosen, given = (getattr(r, axis.replace(" ", "_")) for r in (best, self.said))
            for option, score in scores.items():
                words = self.with_option(best, axis, option).option(axis)
                words += UNTRIED if self.is_exported and axis in ("time scale", "time offset") else ""
                error = math.exp(float(score.mean()))
                rows.append(Tried(axis, words, error, option == given, option == chosen))
            if chosen != given:
                warnings.append(self._warning(axis, best, scores[chosen], scores[given]))
        return Verdict(tuple(rows), self.said, best, tuple(warnings), len(self.images))

    def _warning(self, axis: str, best: Reading, good: Tensor, bad: Tensor) -> str:
        told = remedy(self.checkpoint.family, axis, best, self.checkpoint.schedule.T)
        fix = f"; read it with the setting{'s' * (' ' in told)} {told}" if told else ""
        return (
            f"the weights fit {axis} {best.option(axis)} (error {math.exp(float(good.mean())):.3g}), not "
            f"{self.said.option(axis)} (error {math.exp(float(bad.mean())):.3g}) as the file says{fix}"
        )
