"""A training run before it starts: where, of what, how, how far, and how often what is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim.checkpoints import Checkpoint
from ddim.data import Images
from ddim.jobs.train.recipe import Recipe


@dataclass(frozen=True)
class Cadence:
    """How far, and how often what is written; no part of the recipe. Counts are optimizer steps; 0 is never."""

    max_steps: int
    checkpoint_every: int = 1000
    log_every: int = 50
    preview_every: int = 1000


@dataclass(frozen=True)
class Plan:
    """A run: where, of what, how. It begins from `init`; where that is needed no more, `ancestor` is known of it."""

    run: Path
    images: Images
    preset: str
    recipe: Recipe
    labelled: bool
    command: str
    device: str = "auto"
    init: Checkpoint | None = None
    ancestor: Mapping[str, Any] | None = None

    def stored(self) -> dict[str, Any]:
        """Everything a resume must find unchanged; the data by what its pixels are, not by where they lie."""
        return {
            **self.recipe.as_dict(),
            "preset": self.preset, "shape": list(self.images.shape), "conditional": self.labelled,
            "data": self.images.report.sha256,
            **({"init": self.descent["sha256"]} if self.descent is not None else {}),
        }  # fmt: skip

    @property
    def descent(self) -> Mapping[str, Any] | None:
        """Source, hash and provenance of the model the weights come from."""
        if self.init is None:
            return self.ancestor
        init = self.init
        return {"source": init.source, "sha256": init.sha256, "provenance": init.meta.get("provenance")}
