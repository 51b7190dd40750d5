"""A training run before it starts: where, of what, how, how far, and how often what is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim.checkpoints import Checkpoint
from ddim.data import Batches, Images
from ddim.jobs.latent import LatentData
from ddim.jobs.train.recipe import Recipe
from ddim.nets import Autoencoder, DiffusersNetwork
from ddim.process import usual_spacing


@dataclass(frozen=True)
class Cadence:
    """How far, and how often what is written; no part of the recipe. Counts are optimizer steps; 0 is never.

    snapshots: keep averages from which others are rebuilt, see `snapshots`.
    """

    max_steps: int
    checkpoint_every: int = 1000
    log_every: int = 50
    preview_every: int = 1000
    preview_precision: str = "auto"
    snapshots: bool = True


@dataclass(frozen=True)
class Plan:
    """A run: where, of what, how. It begins from `init`; where that is needed no more, `ancestor` is known of it.

    latents: the images as an autoencoder has them, where the network walks in those.
    """

    run: Path
    images: Images
    preset: str
    recipe: Recipe
    labelled: bool
    command: str
    device: str = "auto"
    init: Checkpoint | None = None
    ancestor: Mapping[str, Any] | None = None
    latents: LatentData | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network walks in."""
        return self.images.shape if self.latents is None else self.latents.shape

    @property
    def autoencoder(self) -> Autoencoder | None:
        """Between that and pictures."""
        return None if self.latents is None else self.latents.autoencoder

    def batches(self) -> Batches:
        """The batch of a step."""
        r = self.recipe
        if self.latents is None:
            return Batches(self.images, r.batch_size, r.seed, flip=r.flip, labelled=self.labelled)
        return self.latents.batches(r.batch_size, r.seed, flip=r.flip, labelled=self.labelled)

    def stored(self) -> dict[str, Any]:
        """Everything a resume must find unchanged; the data by what its pixels are, not by where they lie."""
        return {
            **self.recipe.as_dict(),
            "preset": self.preset, "shape": list(self.shape), "conditional": self.labelled,
            "data": self.images.report.sha256, "source": self.images.source, "command": self.command,
            **({"init": self.descent["sha256"]} if self.descent is not None else {}),
            **({"autoencoder": self.latents.given} if self.latents is not None else {}),
        }  # fmt: skip

    @property
    def facts(self) -> dict[str, Any]:
        """What the model folder says beside weights and schedule: whoever samples reads it there, the previews here.

        x0 has the error of a predicted eps times noise/signal, 157 at the end of the linear schedule, so it is clamped
        there; v and x0 have no such factor, and latents no bounds. Encoding never clips.
        """
        names = self.images.class_names if self.labelled else None
        return {
            "shape": self.shape, "data_range": (-1.0, 1.0),
            "num_classes": len(names) if names else None, "labels": tuple(names) if names else None,
            "null_label": len(names) if names and self.recipe.label_dropout > 0 else None,
            "clips": self.recipe.prediction in ("eps", "score") and self.latents is None, **self._clock,
        }  # fmt: skip

    @property
    def _clock(self) -> dict[str, Any]:
        """What a continuous process adds; nothing on a schedule."""
        r = self.recipe
        process = r.noise_process()
        if process.discrete:
            return {}
        return {"time_label": r.time_label, "data_std": r.data_std, "unit_input": r.unit_input,
                "spacing": usual_spacing(process)}  # fmt: skip

    def model(self, network: DiffusersNetwork) -> Checkpoint:
        """These weights as the run's folder tells them, in memory."""
        return Checkpoint(
            network, self.recipe.noise_process(), str(self.recipe.prediction), family="ddim", source=str(self.run),
            sha256="", autoencoder=self.autoencoder, **self.facts,
        )  # fmt: skip

    @property
    def descent(self) -> Mapping[str, Any] | None:
        """Source, hash and provenance of the model the weights come from."""
        if self.init is None:
            return self.ancestor
        init = self.init
        return {"source": init.source, "sha256": init.sha256, "provenance": init.meta.get("provenance")}
