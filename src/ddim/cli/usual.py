"""What `ddim train` takes for what is not given: the recipe from which an hour of training gains most.

Found by benchmarks/recipes.py (docs/training.md): v on the cosine schedule, min-SNR weights, and for small networks ten
times DDPM's learning rate in small batches. A run that goes on, and the weights of `--init`, say their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddim.cli.resumed import fields
from ddim.jobs import SCHEDULES, Recipe, resolve_precision
from ddim.nets import PRESETS
from ddim.process import Schedule

if TYPE_CHECKING:
    from ddim.checkpoints import Checkpoint

MIN_SNR = 5.0
FINE_TUNING = 2e-4  # a higher rate would undo what the weights know before it teaches them more


def recipe_of(asked: Mapping[str, Any], init: Checkpoint | None = None, *, latent: bool = False) -> Recipe:
    """What decides the weights, made definite; the pace, where it is not asked for, is still `Recipe`'s own."""
    said = {field: asked[option] for option, field in fields().items()}
    said = {field: value for field, value in said.items() if value is not None}
    said["precision"] = resolve_precision(asked["precision"], asked["device"])
    if init is not None:
        said.setdefault("prediction", init.prediction)
    if asked["process"] == "ddpm":
        said.setdefault("schedule", _named(init) or "cosine")
        said.setdefault("min_snr_gamma", MIN_SNR)
    elif latent:
        said.setdefault("data_std", 1.0)
    if said.get("min_snr_gamma") == 0:
        del said["min_snr_gamma"]
    return Recipe(**said)


def paced(recipe: Recipe, asked: Mapping[str, Any], preset: str, init: Checkpoint | None = None) -> Recipe:
    """That recipe at the preset's learning rate and batch size, where they are not asked for."""
    lr = PRESETS[preset].lr if init is None else FINE_TUNING
    usual: dict[str, Any] = {"lr": lr, "batch_size": PRESETS[preset].batch_size}
    return dataclasses.replace(recipe, **{name: value for name, value in usual.items() if asked[name] is None})


def _named(init: Checkpoint | None) -> str | None:
    """The name of the schedule of that model, if it has one."""
    if init is None or not isinstance(init.process, Schedule):
        return None
    return next((name for name in SCHEDULES if getattr(Schedule, name)(init.process.T) == init.process), None)
