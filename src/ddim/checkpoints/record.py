"""`Checkpoint`: a network with everything a sampler must know about it, and what was assumed on the way.

Whatever program wrote the file, the rest of the library sees only this record.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddim.denoise import Clip, Denoiser, DynamicThreshold, NetworkDenoiser, zero_based
from ddim.engine import Exported
from ddim.files import digest
from ddim.nets import DiffusersNetwork
from ddim.pixels import PixelSpace
from ddim.process import LEARNED_VARIANCES, Schedule, tau
from ddim.refused import Refused

READING = ("num_classes", "null_label", "learned_variance", "time_scale", "clips", "clip_range", "thresholding",
           "threshold_quantile", "threshold_maximum", "data_range")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network, its schedule, and the meaning of its inputs and outputs.

    Attributes:
        network: network(x, t, label=None) -> (B, C or 2C, H, W); x in `data_range`, t the network's own time.
        schedule: the one it was trained with.
        prediction: "eps", "x0" or "v".
        shape: (C, H, W) of one image; of a network of one's own any shape.
        num_classes, null_label, labels: real classes 0..K-1, the label that means "any class", their names.
        learned_variance: the network returns 2C channels, the second C of them a variance.
        time_scale: the network's time is (t - 1) * time_scale; 1 keeps whole numbers.
        clips, clip_range, thresholding, threshold_quantile, threshold_maximum: what the file says about x0.
        spacing, steps_offset, ends_at: the file's own walk; ends_at = 1 where it stops at alpha_bar[1]
            (diffusers' set_alpha_to_one = False), 0 where it ends at the clean image.
        variance_type: the file's word for DDPM's variance; of the second C channels it says what they mean.
        data_range: the numbers that mean black and white to the network.
        family, source, sha256: which program's format, where it lay, hash of the weights' file.
        notes: everything that was assumed or changed; `ddim info` prints it.
        meta: whatever else the file holds that is worth keeping (provenance, the peer's own configuration).
    """

    network: nn.Module = field(repr=False)
    schedule: Schedule
    prediction: str
    shape: tuple[int, ...]
    family: str
    source: str
    sha256: str
    num_classes: int | None = None
    null_label: int | None = None
    labels: tuple[str, ...] | None = None
    learned_variance: bool = False
    time_scale: float = 1.0
    clips: bool = True
    clip_range: float = 1.0
    thresholding: bool = False
    threshold_quantile: float = 0.995
    threshold_maximum: float = 1.0
    spacing: str = "leading"
    steps_offset: int = 0
    ends_at: int = 0
    variance_type: str | None = None
    data_range: tuple[float, float] = (-1.0, 1.0)
    notes: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures it makes.

        Raises:
            Refused: it makes something else.
        """
        if len(self.shape) != 3:
            raise Refused(f"this model makes tensors of shape {self.shape}, not pictures (C, H, W)")
        c, h, w = self.shape
        return c, h, w

    @property
    def adapter(self) -> DiffusersNetwork | None:
        """The network where it is of a kind that a diffusers folder can keep, else None."""
        return self.network if isinstance(self.network, DiffusersNetwork) else None

    @property
    def config(self) -> dict[str, Any]:
        """What that network computes by, in diffusers' names; empty where there is none."""
        return {} if self.adapter is None else self.adapter.config

    @property
    def exported(self) -> Exported | None:
        """The network where another runtime runs it, in the precision it was exported in; None where torch does."""
        return self.network if isinstance(self.network, Exported) else None

    @property
    def folder(self) -> Path | None:
        """The folder that is this model; None for a file among others."""
        path = Path(self.source)
        return path if path.is_dir() else None

    @property
    def identity(self) -> str:
        """A short hash of the weights and of how they are read."""
        return digest([self.sha256, self.reading])

    @property
    def reading(self) -> dict[str, Any]:
        """What decides the images beside the weights: what the output means, and whatever is not as usual."""
        usual = {f.name: f.default for f in fields(self)}
        odd = {name: getattr(self, name) for name in READING if getattr(self, name) != usual[name]}
        usually = {} if self.adapter is None else inspect.signature(type(self.adapter.unet)).parameters
        shown = {
            k: v
            for k, v in self.config.items()
            # a later diffusers may have more settings: those at their default say nothing
            if not k.startswith("_") and not (k in usually and _plain(v) == _plain(usually[k].default))
        }
        found = {"prediction": self.prediction, "alpha_bar": digest(self.schedule.alpha_bar.tolist())}
        return found | {k: _plain(v) for k, v in odd.items()} | {"network": digest(shown)}

    def time(self, t: Tensor) -> Tensor:
        """Our t, int64 (B,) in 0..T, as the network's time: t - 1, times `time_scale` where that is not 1."""
        label = zero_based(t)
        return label if self.time_scale == 1.0 else label.to(torch.float32) * self.time_scale

    @property
    def variance(self) -> str | None:
        """What the learned variance means, by diffusers' name; None where there is none, or nobody knows."""
        return self.variance_type if self.learned_variance and self.variance_type in LEARNED_VARIANCES else None

    def denoiser(self, network: nn.Module | None = None) -> NetworkDenoiser:
        """The network (or another that runs it, e.g. in bf16) as a denoiser; no clip.

        Raises:
            Refused: eps prediction with a zero-terminal-SNR schedule.
        """
        label: Callable[[Tensor], Tensor] = zero_based if self.time_scale == 1.0 else self.time
        return NetworkDenoiser(
            self.network if network is None else network,
            self.schedule,
            self.prediction,
            label=label,
            learned_variance=self.variance or self.learned_variance,
        )

    def clipped(self, denoise: Denoiser, *, dynamic: bool = False) -> Denoiser:
        """That denoiser with x0 clamped into the data's range, or by the file's dynamic threshold; eps re-derived."""
        if dynamic:
            return DynamicThreshold(denoise, self.threshold_quantile, self.threshold_maximum)
        if self.data_range == (-1.0, 1.0):
            return Clip(denoise, -self.clip_range, self.clip_range)
        return Clip(denoise, *self.data_range)

    @property
    def space(self) -> PixelSpace:
        """Between the network's numbers and pictures in [-1, 1]."""
        return PixelSpace.of(self.shape, self.data_range)

    def own_tau(self, steps: int | None) -> tuple[int, ...]:
        """The file's own walk: its spacing, its steps_offset, its last step. Compatible, not better than ours.

        Ends at 1 in place of 0 where the file says so: such a walk leaves the noise of alpha_bar[1] in.

        Raises:
            Refused: steps outside 1..T, or an offset that leaves the schedule.
        """
        offset = self.steps_offset if self.spacing == "leading" else 0
        table = self.schedule.alpha_bar.tolist()
        times = tau(self.schedule.T, steps, self.spacing, alpha_bar=table, offset=offset)
        if self.ends_at == 0:
            return times
        stops = tuple(t for t in times if t > self.ends_at)
        if not stops:
            raise Refused(f"the file's own walk of {steps} steps begins where it ends, at t = {self.ends_at}")
        return (*stops, self.ends_at)


def _plain(value: Any) -> Any:
    """Lists and tuples alike, as a JSON file cannot tell them apart."""
    return list(value) if isinstance(value, (list, tuple)) else value
