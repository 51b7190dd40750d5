"""The stamp of a report: how and where its images were made and looked at."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from typing import Any

import torch

from ddim.files import VERSION
from ddim.jobs.evaluate.cells import MORE, Cell, stamp_of
from ddim.metrics import Extractor
from ddim.model import Model, Sampler


def stamp_of_run(model: Model, samplers: Mapping[Cell, Sampler], look: Extractor, batch_size: int) -> dict[str, Any]:
    """How and where the images were made and looked at; what was tuned for each row by itself is told row by row."""
    recipes = {cell.name: sampler.recipe for cell, sampler in samplers.items()}

    def told(name: str) -> Any:
        values = {row: recipe.get(name) for row, recipe in recipes.items()}
        first = next(iter(values.values()))
        return first if all(value == first for value in values.values()) else values

    more = {name: told(name) for name in MORE}
    return {
        "extractor": stamp_of(look), "image size": list(model.picture_shape), "rounding": "8 bits before features",
        **{name: told(name) for name in ("guidance", "clip", "precision")},
        **{name: value for name, value in more.items() if value is not None}, "batch size": batch_size,
        "device": model.device.type, "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "ddim": VERSION, "torch": torch.__version__, "command": " ".join(["ddim", *sys.argv[1:]]),
    }  # fmt: skip
