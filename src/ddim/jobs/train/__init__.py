"""Training as a job: what decides a run, its loss, its loop, its state, its folder, its log."""

from ddim.jobs.train.course import Course
from ddim.jobs.train.denoising import DenoiserRun
from ddim.jobs.train.estimate import HOPELESS, Clock, Smaller, smaller
from ddim.jobs.train.log import Log, refuse_unnamed
from ddim.jobs.train.loop import BatchAt, DivergedError, Loss, Progress, fit
from ddim.jobs.train.loss import Denoising, hidden
from ddim.jobs.train.pace import PACE, Pace, rate_at, refuse_pace
from ddim.jobs.train.peers import agreed, among_peers
from ddim.jobs.train.plan import Cadence, Plan
from ddim.jobs.train.previews import PREVIEWS
from ddim.jobs.train.reached import Standing, standing
from ddim.jobs.train.recipe import SCHEDULES, Recipe, difference, read_recipe
from ddim.jobs.train.run import (
    ancestor_of,
    due,
    followed,
    opened,
    provenance,
    refuse_existing,
    start,
    stored_recipe,
    train_run,
)
from ddim.jobs.train.snapshots import (
    AVERAGES,
    Snapshot,
    keep_snapshot,
    read_snapshot,
    snapshot_files,
    snapshot_spacing,
    snapshot_steps,
)
from ddim.jobs.train.state import (
    TrainState,
    accelerator_for,
    checkpoints,
    load_checkpoint,
    new_state,
    resolve_precision,
    save_checkpoint,
    state_of,
)

__all__ = [
    "AVERAGES",
    "HOPELESS",
    "PACE",
    "PREVIEWS",
    "SCHEDULES",
    "BatchAt",
    "Cadence",
    "Clock",
    "Course",
    "DenoiserRun",
    "Denoising",
    "DivergedError",
    "Log",
    "Loss",
    "Pace",
    "Plan",
    "Progress",
    "Recipe",
    "Smaller",
    "Snapshot",
    "Standing",
    "TrainState",
    "accelerator_for",
    "agreed",
    "among_peers",
    "ancestor_of",
    "checkpoints",
    "difference",
    "due",
    "fit",
    "followed",
    "hidden",
    "keep_snapshot",
    "load_checkpoint",
    "new_state",
    "opened",
    "provenance",
    "rate_at",
    "read_recipe",
    "read_snapshot",
    "refuse_existing",
    "refuse_pace",
    "refuse_unnamed",
    "resolve_precision",
    "save_checkpoint",
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
