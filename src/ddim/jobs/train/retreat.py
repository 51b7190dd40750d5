"""What a run does that diverges: once, it goes back to its last good state, and on from there at a tenth of the rate.

The last good state is the newest checkpoint whose loss was not high, or the beginning where there is none yet. That it
went back is part of the state from then on: a run that is killed and resumed takes the same steps.
"""

from __future__ import annotations

import math

import torch

from ddim.jobs.train.course import Course, M
from ddim.jobs.train.log import note
from ddim.jobs.train.loop import DivergedError
from ddim.jobs.train.state import (
    STATE,
    Retreat,
    TrainState,
    checkpoints,
    load_checkpoint,
    save_checkpoint,
    step_of,
)
from ddim.nets import Ema
from ddim.refused import Refused

SLOWER = 0.1  # of the rate


def gone_back(course: Course[M], state: TrainState[M], error: DivergedError) -> str:
    """Put the state back; what happened, in words.

    Raises:
        DivergedError: the run went back already; names the last good checkpoint.
    """
    folder = course.run / STATE
    if state.retreat is not None:
        kept = checkpoints(folder)
        last_good = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        raise DivergedError(
            f"{error}, although the run went back from step {state.retreat.since} to {state.retreat.to} and on at "
            f"{state.retreat.factor:g} of its rate; {last_good}; begin a new run with a lower `lr` (now "
            f"{course.recipe.lr:g})"
        ) from None
    since = state.step
    state.optimizer.zero_grad(set_to_none=True)
    if not _last_good(course, state):
        _begin_anew(course, state)
    state.retreat = Retreat(since, state.step, SLOWER)
    state.accelerator.wait_for_everyone()  # nobody reads any more what is written now
    if state.accelerator.is_main_process:
        if state.step:
            save_checkpoint(folder, state)
        for later in (p for p in checkpoints(folder) if step_of(p) > state.step):
            later.unlink()
        note(course.run, state.step, retreat_from=since, lr_factor=SLOWER)
    state.accelerator.wait_for_everyone()
    return f"{error}; the run goes back to step {state.step} and on from there at {SLOWER:g} of its learning rate"


def _last_good(course: Course[M], state: TrainState[M]) -> bool:
    """Load the newest checkpoint whose loss was not high; whether there is one."""
    for path in reversed(checkpoints(course.run / STATE)):
        try:
            load_checkpoint(path, state)
        except Refused:  # damaged: the one before is as good
            continue
        if state.high_steps == 0 and math.isfinite(state.smooth_loss):
            return True
    return False


def _begin_anew(course: Course[M], state: TrainState[M]) -> None:
    """The state before the first step, as `start` makes it."""
    state.unwrapped.load_state_dict(course.fresh().state_dict())
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": {}})
    state.ema, state.powers = Ema(state.unwrapped, course.recipe.ema), None
    course.begin(state)
    if state.accelerator.scaler is not None:
        fresh_scale = torch.amp.GradScaler(state.accelerator.device.type).state_dict()  # type: ignore[attr-defined]
        state.accelerator.scaler.load_state_dict(fresh_scale)
    state.step, state.smooth_loss, state.best_loss, state.high_steps = 0, math.nan, math.inf, 0
