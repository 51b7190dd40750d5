"""A student as a folder: its stages one after another, each a model folder when it is finished.

RUN is itself the model folder of the newest student. Beside it lie stages/, state/ (the recipe, and checkpoints of the
stage in hand), previews/, log.jsonl and tensorboard/.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ddim.checkpoints import Checkpoint, save_own_folder
from ddim.checkpoints import save_checkpoint as save_model_folder
from ddim.files import Hold, alone, is_temporary, sweep, write_text
from ddim.jobs.distil.plan import StudentPlan
from ddim.jobs.distil.previews import Previews
from ddim.jobs.job import RECIPE
from ddim.jobs.train import (
    Cadence,
    DivergedError,
    Log,
    Progress,
    TrainState,
    accelerator_for,
    agreed,
    among_peers,
    checkpoints,
    difference,
    due,
    fit,
    load_checkpoint,
    read_recipe,
    refuse_unnamed,
    save_checkpoint,
    state_of,
)
from ddim.model import Model
from ddim.refused import Refused

STATE, PREVIEWS = "state", "previews"


class Learned(NamedTuple):
    """One update: of which stage, and what it did; `done` and `total` count the updates of all stages."""

    stage: int
    steps: int
    progress: Progress
    done: int
    total: int


def stored_student(run: Path) -> dict[str, Any]:
    """Everything a student's run stored when it began.

    Raises:
        Refused: there is nothing, or it is damaged.
    """
    return read_recipe(run / STATE / RECIPE, run)


def refuse_student(run: Path, *, resume: bool) -> None:
    """Before anything is read: a new run needs a new or empty folder, one that goes on needs what it stored.

    Raises:
        Refused: says what to do.
    """
    refuse_unnamed(run)
    begun = (run / STATE / RECIPE).is_file()
    if resume and not begun:
        raise Refused(f"{run} holds no student to go on with (no {STATE}/{RECIPE}); start one without `resume`")
    if resume or not run.exists() or (run.is_dir() and _holds_nothing(run)):
        return
    remedy = "give `resume` to go on with it, or choose" if begun else "choose"
    raise Refused(f"{run} exists; {remedy} a new folder for `out`")


def _holds_nothing(run: Path) -> bool:
    """Whether it is empty, or of a run that ended before its recipe was written."""
    state = run / STATE
    return all(is_temporary(p.name) or (p == state and p.is_dir()) for p in (*run.iterdir(), *state.glob("*")))


def distil_run(
    plan: StudentPlan, cadence: Cadence, stop: Callable[[], bool] = lambda: False, *, resume: bool = False
) -> Iterator[Learned]:
    """Make the student stage by stage, keeping RUN up to date, and yield after every update.

    A stage begins from its teacher's folder alone, so that a run killed anywhere and gone on with gives the same
    weights bit for bit. `stop` is asked after every update; when it says yes, a checkpoint is saved and the run ends.

    Raises:
        Refused: RUN exists and resume is off; nothing to resume; another recipe, teacher or data; another process is at
            work there.
        DivergedError: with the last good checkpoint named.
    """
    hold = _opened(plan, resume)
    try:
        for index in range(len(plan.recipe.stages)):
            if plan.finished(index):
                shutil.rmtree(_state(plan, index), ignore_errors=True)  # a run killed between the two leaves it
                continue
            with among_peers(plan.run):
                ended = yield from _stage(plan, index, cadence, stop)
            if not ended:
                return
    finally:
        if hold is not None:
            hold.release()


def _opened(plan: StudentPlan, resume: bool) -> Hold | None:
    """The folder, for the first process of a run; the others wait for it."""
    run = plan.run
    refuse_student(run, resume=resume)  # before a folder is made
    if resume:
        changed = difference(read_recipe(run / STATE / RECIPE, run), plan.stored())
        if changed:
            raise Refused(f"cannot resume {run}: {changed}; leave that as it was, or choose a new `out`")
    met = accelerator_for(plan.recipe.precision, plan.device)  # all have looked: now the first may write
    hold = _claimed(plan, resume) if met.is_main_process else None
    met.wait_for_everyone()
    return hold


def _claimed(plan: StudentPlan, resume: bool) -> Hold:
    run, folder = plan.run, plan.run / STATE
    run.mkdir(parents=True, exist_ok=True)
    with alone(run):  # looked at once more: another may have begun there since
        refuse_student(run, resume=resume)
        folder.mkdir(exist_ok=True)
        hold = Hold(folder)
    for place in (run, folder, run / PREVIEWS):
        sweep(place)
    write_text(folder / RECIPE, json.dumps(plan.stored(), indent=1))
    return hold


def _state(plan: StudentPlan, index: int) -> Path:
    """Checkpoints of a stage; it has none before its first and after its end."""
    return plan.run / STATE / f"stage-{index}"


def _stage(plan: StudentPlan, index: int, cadence: Cadence, stop: Callable[[], bool]) -> Generator[Learned, None, bool]:
    """One stage to its end; returns whether it was reached."""
    master, recipe = plan.master(index), plan.recipe
    network = copy.deepcopy(plan.beginner(index, master)).requires_grad_(True)
    state = state_of(network, recipe.stage(index), plan.device)
    folder, before = _state(plan, index), index * recipe.updates
    if found := checkpoints(folder):
        load_checkpoint(found[-1], state)
    log = Log(plan.run, before + state.step) if state.accelerator.is_main_process else None
    previews = Previews(plan, index)
    total = recipe.updates * len(recipe.stages)
    try:
        for p in fit(state, plan.batches(index), plan.loss(index, master), max_steps=recipe.updates):
            done = before + p.step
            if log is not None and due(done, cadence.log_every):
                log.write(p._replace(step=done), stage=index, student_steps=recipe.stages[index])
            last = p.step == recipe.updates
            stopped = agreed(state, stop())
            if log is not None and (due(done, cadence.preview_every) or (last and cadence.preview_every)):
                log.picture(previews.draw(_made(plan, index, state, master)), done)
            if log is not None and not last and (stopped or due(p.step, cadence.checkpoint_every)):
                save_checkpoint(folder, state)
            yield Learned(index, recipe.stages[index], p, done, total)
            if stopped and not last:
                return False
        _finish(plan, index, state, master)
    except DivergedError as error:
        raise DivergedError(
            f"{error} of stage {index}; begin a new run with a lower `lr` (now {recipe.lr:g})"
        ) from None
    finally:
        if log is not None:
            log.close()
    return not stop()


def _made(plan: StudentPlan, index: int, state: TrainState[nn.Module], master: Model) -> Checkpoint:
    """The student so far, a copy with the averaged weights; what accelerate put around the original stays behind."""
    own = copy.deepcopy(master.checkpoint.network).eval()
    with state.ema.applied(state.unwrapped):
        own.load_state_dict(state.unwrapped.state_dict())
    return plan.model(own, index, steps=state.step)


def _finish(plan: StudentPlan, index: int, state: TrainState[nn.Module], master: Model) -> None:
    """RUN as the newest student, then the stage's own folder, which says that it is finished."""
    if state.accelerator.is_main_process:
        made = _made(plan, index, state, master)
        for place in (plan.run, plan.folder(index)):
            if made.adapter is None:
                save_own_folder(place, made, new=False)
            else:
                save_model_folder(place, made, new=False)
        shutil.rmtree(_state(plan, index), ignore_errors=True)
    state.accelerator.wait_for_everyone()
