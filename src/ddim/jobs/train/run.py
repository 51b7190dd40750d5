"""A training run as a folder: checkpoints, previews, logs, and the model itself, kept whole at every moment.

RUN is a model folder (docs/checkpoints.md) with the averaged weights; beside them lie state/ (checkpoints and
the recipe), averages/ (see `snapshots`), previews/, log.jsonl and tensorboard/.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ddim.files import Hold, alone, is_temporary, read_json, sweep, write_text
from ddim.jobs.job import RECIPE
from ddim.jobs.train.course import Course, M
from ddim.jobs.train.denoising import DenoiserRun
from ddim.jobs.train.log import BOARD, LOG, Log, refuse_unnamed
from ddim.jobs.train.loop import DivergedError, Progress, fit
from ddim.jobs.train.newest import load_newest, set_aside
from ddim.jobs.train.peers import agreed, among_peers
from ddim.jobs.train.plan import Cadence, Plan
from ddim.jobs.train.previews import PREVIEWS
from ddim.jobs.train.recipe import difference, read_recipe
from ddim.jobs.train.retreat import gone_back
from ddim.jobs.train.saved import checkpoint
from ddim.jobs.train.snapshots import AVERAGES, follow, keep_snapshot
from ddim.jobs.train.state import STATE, TrainState, checkpoints, state_of
from ddim.nets import DiffusersNetwork
from ddim.refused import Refused

MODELS = ("model_index.json", "config.json")  # one of which every model has
BARE = (STATE, LOG, PREVIEWS, BOARD, AVERAGES)  # all there is in a run before its first checkpoint


def start(plan: Plan, max_steps: int, *, resume: bool) -> TrainState[DiffusersNetwork]:
    """The state a run begins or goes on with, see `opened`."""
    return opened(DenoiserRun(plan), max_steps, resume=resume)


def opened(course: Course[M], max_steps: int, *, resume: bool) -> TrainState[M]:
    """The state a run begins or goes on with; nothing is written before everything has been checked.

    Raises:
        Refused: RUN exists and resume is off; nothing to resume; another recipe (names the field); another
            process trains there.
    """
    if resume:
        _refuse_lost_state(course)
        _refuse_other_recipe(course)
    else:
        refuse_existing(course.run)
    state = state_of(course.fresh(), course.recipe, course.device)
    try:
        _prepare(course, state, max_steps, resume=resume)
    except BaseException:
        if state.hold is not None:
            state.hold.release()
        raise
    state.accelerator.wait_for_everyone()
    return state


def _claimed(course: Course[Any], *, resume: bool) -> Hold:
    """The run for this process: looked at once more, as another may have begun or ended there since the first look."""
    folder, made = course.run / STATE, False
    course.run.mkdir(parents=True, exist_ok=True)
    with alone(course.run):
        try:
            if not folder.exists():
                folder.mkdir()
                made = True
            hold = Hold(folder)
            if resume:
                _refuse_lost_state(course)
                _refuse_other_recipe(course)
            else:
                refuse_existing(course.run)
        except BaseException:
            if made:
                folder.rmdir()
            raise
    return hold


def _prepare(course: Course[M], state: TrainState[M], max_steps: int, *, resume: bool) -> None:
    """The weights to begin with, and then the folder."""
    folder, main = course.run / STATE, state.accelerator.is_main_process
    if resume and main:  # before a checkpoint is read: whoever is at work there may remove it
        state.hold = _claimed(course, resume=True)
    damaged = load_newest(folder, state) if resume else {}
    if state.step == 0:
        course.begin(state)
    if state.step > max_steps:
        raise Refused(f"{course.run} is at step {state.step} already, beyond `max_steps` {max_steps}; raise it")
    if not main:
        return
    state.hold = state.hold or _claimed(course, resume=False)
    for place in (course.run, folder, course.run / PREVIEWS):
        sweep(place)
    state.notes += set_aside(damaged, state)
    write_text(folder / RECIPE, json.dumps(course.stored(), indent=1))


def refuse_existing(run: Path) -> None:
    """Only a new or empty folder is begun in, or a run that ended before its first checkpoint: it holds no weights.

    Raises:
        Refused: anything else is there; says what to do.
    """
    refuse_unnamed(run)
    if not run.exists() or (run.is_dir() and not any(run.iterdir())):
        return
    state = run / STATE
    if run.is_dir() and checkpoints(state):
        raise Refused(f"{run} exists; give `resume` to go on with it, or choose a new folder for `out`")
    begun = state.is_dir() and all(p.name == RECIPE or _left(p.name) for p in state.iterdir())
    if not begun or any(p.name not in BARE and not is_temporary(p.name) for p in run.iterdir()):
        raise Refused(f"{run} exists and holds no run to go on with; choose a new folder for `out`")


def _left(name: str) -> bool:
    """Whether a file in state/ is what a killed writer left, of this version or of 0.1."""
    return is_temporary(name) or (name.startswith("step-") and name.endswith(".part"))


def stored_recipe(run: Path) -> dict[str, Any]:
    """Everything a run stored when it began or was last gone on with.

    Raises:
        Refused: there is nothing, or it is damaged.
    """
    return read_recipe(run / STATE / RECIPE, run)


def ancestor_of(run: Path) -> dict[str, Any] | None:
    """What a run that has a checkpoint says of the model it was begun from, which it needs no more."""
    if not checkpoints(run / STATE):
        return None
    sha = read_recipe(run / STATE / RECIPE, run).get("init")
    told = provenance(run).get("init")  # nothing where it was never exported: the recipe still has the hash
    known = told if isinstance(told, dict) and told.get("sha256") == sha else {"source": None, "provenance": None}
    return None if sha is None else {**known, "sha256": sha}


def provenance(run: Path) -> dict[str, Any]:
    """What a run's model says of where it comes from; nothing where there is none, or none that can be read."""
    try:
        found = read_json(run / "ddim.json").get("provenance")
    except (OSError, Refused):
        found = None
    return found if isinstance(found, dict) else {}


def _refuse_lost_state(course: Course[Any]) -> None:
    """A model without a checkpoint cannot be gone on with: to begin again would put a young model in its place."""
    run = course.run
    if any((run / name).exists() for name in MODELS) and not checkpoints(run / STATE):
        raise Refused(
            f"{run} holds a trained model but no checkpoint (no {STATE}/step-*.pt), so nothing is left to go on with; "
            f"{course.remedy}"
        )


def _refuse_other_recipe(course: Course[Any]) -> None:
    run, images = course.run, course.images
    changed = difference(read_recipe(run / STATE / RECIPE, run), course.stored())
    if changed and not checkpoints(run / STATE):
        raise Refused(f"cannot resume {run} with another recipe: {changed}; begin anew, without `resume`")
    if changed and "images" in changed:
        raise Refused(
            f"{changed} ({images.report.source}: {len(images)} now) since {run} began, or how they are read: "
            f"{course.remedy}"
        )
    if changed:
        raise Refused(f"cannot resume {run} with another recipe: {changed}; leave that out, or choose a new `out`")


def train_run(
    plan: Plan, state: TrainState[DiffusersNetwork], cadence: Cadence, stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda words: None,
) -> Iterator[Progress]:  # fmt: skip
    """Train a denoiser to cadence.max_steps, see `followed`."""
    return followed(DenoiserRun(plan), state, cadence, stop, tell)


def followed(
    course: Course[M], state: TrainState[M], cadence: Cadence, stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda words: None,
) -> Iterator[Progress]:  # fmt: skip
    """Train to cadence.max_steps, keeping RUN up to date, and yield after every step.

    `stop` is asked after every step; when it says yes, a checkpoint is saved and the loop ends. `tell` hears that a run
    that diverged has gone back (see `gone_back`): steps beyond its last good state come again.

    Raises:
        DivergedError: the second time; with the last good checkpoint named.
        Refused: another process of this training is lost.
    """
    try:
        while True:
            try:
                with among_peers(course.run):
                    yield from _trained(course, state, cadence, stop)
                break
            except DivergedError as error:
                tell(gone_back(course, state, error))
    finally:
        if state.hold is not None:
            state.hold.release()


def _trained(course: Course[M], state: TrainState[M], cadence: Cadence, stop: Callable[[], bool]) -> Iterator[Progress]:
    main = state.accelerator.is_main_process
    log = Log(course.run, state.step) if main else None
    begun = state.step
    follow(course.run, state, cadence.snapshots)
    try:
        for p in fit(state, course.batches(), course.loss(), max_steps=cadence.max_steps):
            last = p.step == cadence.max_steps or agreed(state, stop())
            saves = last or due(p.step, cadence.checkpoint_every)
            if log is not None:
                more = course.measured(state) if saves else {}
                if more or due(p.step, cadence.log_every):
                    log.write(p, **more)
                if due(p.step, cadence.preview_every):
                    log.picture(course.preview(state, cadence.preview_precision), p.step)
            if saves:
                checkpoint(course, state)
            elif main:
                keep_snapshot(course.run, state, due_only=True)
            yield p
            if last:
                break
        if begun == state.step and cadence.max_steps <= state.step:
            checkpoint(course, state)  # a finished run, resumed: write the model anew
    finally:
        if log is not None:
            log.close()


def due(step: int, every: int) -> bool:
    """Whether what happens every so many steps happens now; 0 is never."""
    return every > 0 and step % every == 0
