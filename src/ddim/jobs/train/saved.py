"""What a run writes at a checkpoint: snapshots, its state, and the model it is so far."""

from __future__ import annotations

from ddim.jobs.train.course import Course, M
from ddim.jobs.train.snapshots import keep_snapshot, thin
from ddim.jobs.train.state import STATE, TrainState, save_checkpoint


def checkpoint(course: Course[M], state: TrainState[M]) -> None:
    """Save snapshots of the averages and the state, then the averaged weights as a model folder in RUN."""
    if state.accelerator.is_main_process:
        keep_snapshot(course.run, state)
        save_checkpoint(course.run / STATE, state)
        thin(course.run, state)
        course.export(state)
    state.accelerator.wait_for_everyone()
