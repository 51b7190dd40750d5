"""Training as a job: what decides a run, its loss, its loop, its state, its folder, its log."""

from ddim.jobs.train.recipe import Precision, Recipe
from ddim.jobs.train.run import Cadence, Plan, ancestor_of, refuse_existing, start, train_run
from ddim.jobs.train.state import resolve_precision

__all__ = [
    "Cadence",
    "Plan",
    "Precision",
    "Recipe",
    "ancestor_of",
    "refuse_existing",
    "resolve_precision",
    "start",
    "train_run",
]
