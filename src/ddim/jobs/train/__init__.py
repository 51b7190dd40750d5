"""Training as a job: what decides a run, its loss, its loop, its state, its folder, its log."""

from ddim.jobs.train.estimate import HOPELESS, Clock, Smaller, smaller
from ddim.jobs.train.loop import DivergedError, Loss, Progress, fit
from ddim.jobs.train.loss import Denoising
from ddim.jobs.train.plan import Cadence, Plan
from ddim.jobs.train.reached import Standing, standing
from ddim.jobs.train.recipe import Recipe
from ddim.jobs.train.run import ancestor_of, provenance, refuse_existing, start, stored_recipe, train_run
from ddim.jobs.train.snapshots import (
    AVERAGES,
    Snapshot,
    keep_snapshot,
    read_snapshot,
    snapshot_files,
    snapshot_spacing,
    snapshot_steps,
)
from ddim.jobs.train.state import TrainState, new_state, resolve_precision, state_of

__all__ = [
    "AVERAGES",
    "HOPELESS",
    "Cadence",
    "Clock",
    "Denoising",
    "DivergedError",
    "Loss",
    "Plan",
    "Progress",
    "Recipe",
    "Smaller",
    "Snapshot",
    "Standing",
    "TrainState",
    "ancestor_of",
    "fit",
    "keep_snapshot",
    "new_state",
    "provenance",
    "read_snapshot",
    "refuse_existing",
    "resolve_precision",
    "smaller",
    "snapshot_files",
    "snapshot_spacing",
    "snapshot_steps",
    "standing",
    "start",
    "state_of",
    "stored_recipe",
    "train_run",
]
