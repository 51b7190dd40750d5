"""`Checkpoint`: a network with everything a sampler must know about it, and what was assumed on the way.

Whatever program wrote the file, the rest of the library sees only this record.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddim.checkpoints.student import Student
from ddim.denoise import Clip, Consistent, Denoiser, DynamicThreshold, NetworkDenoiser, zero_based
from ddim.engine import Exported
from ddim.files import digest
from ddim.nets import Autoencoder, DiffusersNetwork
from ddim.pixels import LatentSpace, PixelSpace, Space
from ddim.process import (
    LEARNED_VARIANCES,
    Continuous,
    Parameterisation,
    Process,
    Schedule,
    TimeLabel,
    parameterisation,
    tau,
    usual_label,
)
from ddim.refused import Refused

READING = ("num_classes", "null_label", "learned_variance", "time_scale", "clips", "clip_range", "thresholding",
           "threshold_quantile", "threshold_maximum", "data_range", "data_std", "unit_input", "student")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained network, its process, and the meaning of its inputs and outputs.

    Attributes:
        network: network(x, t, label=None) -> (B, C or 2C, H, W); x in `data_range`, t the network's own time.
        process: the one it was trained on: a `Schedule`, or a continuous one.
        prediction: a name of `PARAMETERISATIONS`; data_std, unit_input: see `parameterisation`.
        shape: (C, H, W) of one image, or of its latents; of a network of one's own any shape.
        num_classes, null_label, labels: real classes 0..K-1, the label that means "any class", their names.
        learned_variance: the network returns 2C channels, the second C of them a variance.
        time_scale: the network's time is (t - 1) * time_scale on a schedule; 1 keeps whole numbers.
        time_label: what the network is told of time on a continuous process; None is what is usual there.
        clips, clip_range, thresholding, threshold_quantile, threshold_maximum: what the file says about x0.
        spacing, steps_offset, ends_at: the file's own walk; ends_at = 1 where it stops at alpha_bar[1]
            (diffusers' set_alpha_to_one = False), 0 where it ends at the clean image.
        variance_type: the file's word for DDPM's variance; of the second C channels it says what they mean.
        data_range: the numbers that mean black and white to the network.
        family, source, sha256: which program's format, where it lay, hash of the weights' file.
        autoencoder: between the latents it walks in and pictures; None where it walks in pixels.
        student: the few steps it stands for and of whom it learnt them, where it is a student.
        notes: everything that was assumed or changed; `ddim info` prints it.
        meta: whatever else the file holds that is worth keeping (provenance, the peer's own configuration).
    """

    network: nn.Module = field(repr=False)
    process: Process
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
    student: Student | None = None
    notes: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)
    data_std: float = 0.5
    unit_input: bool = False
    time_label: TimeLabel | None = None
    autoencoder: Autoencoder | None = field(default=None, repr=False)

    @property
    def schedule(self) -> Schedule:
        """The table of levels of a discrete process.

        Raises:
            Refused: the process is a continuous one, which has none.
        """
        if not isinstance(self.process, Schedule):
            raise Refused(
                f"{self.source} is of the continuous process {self.process.name}, and this works on a schedule of "
                "whole times only"
            )
        return self.process

    @property
    def parameterisation(self) -> Parameterisation:
        """What the network's output means, and how x_t is shown to it."""
        return parameterisation(self.prediction, data_std=self.data_std, unit_input=self.unit_input)

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures it makes.

        Raises:
            Refused: it makes something else.
        """
        if len(self.shape) != 3:
            raise Refused(f"this model makes tensors of shape {self.shape}, not pictures (C, H, W)")
        c, h, w = self.space.image_shape
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
        found = {"prediction": self.prediction} | self._clock | {k: _plain(v) for k, v in odd.items()}
        found |= {} if self.autoencoder is None else {"autoencoder": self.autoencoder.identity}
        return found | {"network": digest(shown)}

    @property
    def _clock(self) -> dict[str, Any]:
        if isinstance(self.process, Schedule):
            return {"alpha_bar": digest(self.process.alpha_bar.tolist())}
        label = self.label
        return {"process": self.process.name, "time_label": None if label is None else label.as_json()}

    @property
    def label(self) -> TimeLabel | None:
        """What a network on a continuous process is told of time; None on a schedule, and for t itself."""
        if isinstance(self.process, Continuous) and self.process.numbers is not None and self.time_label is None:
            return usual_label(self.process.kind, self.prediction)
        return self.time_label

    def time(self, t: Tensor) -> Tensor:
        """Our t, (B,), as the network's time: t - 1 times `time_scale` on a schedule, else what its label says."""
        if not self.process.discrete:
            return t.to(torch.float32) if self.label is None else self.label(t, self.process)
        label = zero_based(t)
        return label if self.time_scale == 1.0 else label.to(torch.float32) * self.time_scale

    @property
    def variance(self) -> str | None:
        """What the learned variance means, by diffusers' name; None where there is none, or nobody knows."""
        return self.variance_type if self.learned_variance and self.variance_type in LEARNED_VARIANCES else None

    def denoiser(self, network: nn.Module | None = None) -> Denoiser:
        """The network (or another that runs it, e.g. in bf16) as a denoiser; no clip. A consistency student as that.

        Raises:
            Refused: eps prediction with a zero-terminal-SNR schedule.
        """
        bare = NetworkDenoiser(
            self.network if network is None else network,
            self.process,
            self.parameterisation,
            label=zero_based if self.process.discrete and self.time_scale == 1.0 else self.time,
            learned_variance=self.variance or self.learned_variance,
        )
        return Consistent(bare) if self.student is not None and self.student.consistent else bare

    def clipped(self, denoise: Denoiser, *, dynamic: bool = False) -> Denoiser:
        """That denoiser with x0 clamped into the data's range, or by the file's dynamic threshold; eps re-derived."""
        if dynamic:
            return DynamicThreshold(denoise, self.threshold_quantile, self.threshold_maximum)
        if self.data_range == (-1.0, 1.0):
            return Clip(denoise, -self.clip_range, self.clip_range)
        return Clip(denoise, *self.data_range)

    @property
    def space(self) -> Space:
        """Between the network's numbers and pictures in [-1, 1]."""
        if self.autoencoder is not None:
            return LatentSpace(self.shape, self.autoencoder.image_shape(self.shape), self.autoencoder)
        return PixelSpace.of(self.shape, self.data_range)

    def own_tau(self, steps: int | None) -> tuple[Any, ...]:
        """The file's own walk: its spacing, its steps_offset, its last step. Compatible, not better than ours.

        Ends at 1 in place of 0 where the file says so: such a walk leaves the noise of alpha_bar[1] in.

        Raises:
            Refused: steps outside 1..T, or an offset that leaves the schedule.
        """
        if not self.process.discrete:
            return tau(self.process, steps, self.spacing)
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
    if isinstance(value, Student):
        return value.as_json()
    return list(value) if isinstance(value, (list, tuple)) else value
