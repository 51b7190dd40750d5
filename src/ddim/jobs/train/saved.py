"""What a run writes at a checkpoint: snapshots, its state, and the model it is so far."""

from __future__ import annotations

from typing import Any

from ddim.checkpoints import save_folder
from ddim.jobs.train.plan import Plan
from ddim.jobs.train.snapshots import keep_snapshot, thin
from ddim.jobs.train.state import STATE, TrainState, save_checkpoint
from ddim.nets import DiffusersNetwork


def checkpoint(plan: Plan, state: TrainState[DiffusersNetwork]) -> None:
    """Save snapshots of the averages and the state, then the averaged weights as a model folder in RUN."""
    if state.accelerator.is_main_process:
        keep_snapshot(plan.run, state)
        save_checkpoint(plan.run / STATE, state)
        thin(plan.run, state)
        export(plan, state)
    state.accelerator.wait_for_everyone()


def export(plan: Plan, state: TrainState[DiffusersNetwork]) -> None:
    """RUN as a model folder with the averaged weights."""
    meta: dict[str, Any] = {
        **plan.facts,
        "provenance": {
            "command": plan.command, "data": plan.images.report.source, "data_sha256": plan.images.report.sha256,
            "images": len(plan.images), "steps": state.step, "preset": plan.preset, "weights": "ema",
            "recipe": plan.recipe.as_dict(),
            **({"retreat": state.retreat._asdict()} if state.retreat is not None else {}),
            **({"init": dict(plan.descent)} if plan.descent is not None else {}),
        },
    }  # fmt: skip
    process, said = plan.recipe.noise_process(), str(plan.recipe.prediction)
    with state.ema.applied(state.unwrapped):
        save_folder(plan.run, state.unwrapped.unet, process, prediction=said, meta=meta)
