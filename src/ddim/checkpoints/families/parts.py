"""Programs that write one file: its content becomes a network in diffusers' terms and the facts around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ddim.checkpoints.families.diffusers import filled_unet
from ddim.checkpoints.families.family import Found
from ddim.checkpoints.record import Checkpoint
from ddim.files import sha256
from ddim.nets import DiffusersNetwork
from ddim.process import Process, TimeLabel
from ddim.refused import Refused

WIDTHS = ("block_out_channels", "dim_mults", "channel_mult")  # one entry a level, in whoever's words


@dataclass
class Parts:
    """A converter's result; names as in `Checkpoint`. `module` in place of config and state, if any."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    process: Process
    prediction: str
    notes: list[str]
    spacing: str = "leading"
    data_range: tuple[float, float] = (-1.0, 1.0)
    clips: bool = True
    time_scale: float = 1.0
    variance_type: str | None = None
    module: nn.Module | None = None
    data_std: float = 0.5
    unit_input: bool = False
    time_label: TimeLabel | None = None
    null_label: int | None = None

    def checkpoint(self, family: str, path: Path, digest: str, settings: Mapping[str, Any]) -> Checkpoint:
        """The network built and the facts beside it."""
        size = self.config["sample_size"]
        h, w = (size, size) if isinstance(size, int) else size
        levels = len(next((self.config[k] for k in WIDTHS if self.config.get(k)), (1,)))
        if h % 2 ** (levels - 1) or w % 2 ** (levels - 1):
            raise Refused(f"{path} halves its images {levels - 1} times, so {h}x{w} is not their size")
        channels, out = self.config["in_channels"], self.config["out_channels"]
        if out not in (channels, 2 * channels):
            raise Refused(
                f"{path} takes {channels} channels and returns {out}: not an unconditional DDPM (an upsampler?)"
            )
        network, embeds = self.module, self.config.get("num_class_embeds")
        if network is None:
            network = DiffusersNetwork(filled_unet(self.config, self.state, str(path)), self.null_label).eval()
        provenance = {"family": family, "file": path.name, "sha256": digest, "settings": dict(settings)}
        return Checkpoint(
            network=network,
            process=self.process,
            prediction=self.prediction,
            shape=(channels, h, w),
            family=family,
            source=str(path),
            sha256=digest,
            num_classes=None if embeds is None else embeds - (self.null_label is not None),
            null_label=self.null_label,
            learned_variance=out != channels,
            time_scale=self.time_scale,
            clips=self.clips,
            spacing=self.spacing,
            variance_type=self.variance_type,
            data_range=self.data_range,
            notes=tuple(self.notes),
            meta={"provenance": provenance},
            data_std=self.data_std,
            unit_input=self.unit_input,
            time_label=self.time_label,
        )


@dataclass(frozen=True)
class FileFamily:
    """A program whose models are single files of weights.

    Args:
        holds: whether a file's content has this program's layout.
        parts: (content, settings, the file for messages) -> parts.
    """

    name: str
    holds: Callable[[Any], bool]
    parts: Callable[[Any, Mapping[str, Any], str], Parts]
    of_folders: bool = field(default=False, init=False)

    def is_this(self, found: Found) -> bool:
        return not found.is_folder and self.holds(found.content)

    def read(self, found: Found, settings: Mapping[str, Any]) -> Checkpoint:
        if found.is_folder:
            raise Refused(f"{found.path} is a folder, not a file of {self.name}")
        parts = self.parts(found.content, settings, str(found.path))
        return parts.checkpoint(self.name, found.path, sha256(found.path), settings)
