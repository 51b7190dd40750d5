"""`ddim distil` beside its options: what is checked first, the recipe, the bar, what a run that goes on knows."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

import ddim
from ddim.cli import latent, show, training, typed
from ddim.cli.typed import flag_of, numbers
from ddim.jobs import (
    Cadence,
    Clock,
    Learned,
    StudentPlan,
    StudentRecipe,
    distil_run,
    good_start,
    own_images,
    refuse_student,
    resolve_precision,
    share_of,
    stored_student,
)
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.data import Images

EVERY = 60.0  # seconds between lines where nobody watches a bar
SAME = ("clip", "loss", "solver", "guidance", "batch_size", "accumulation", "lr", "warmup", "ema", "label_dropout",
        "flip", "q", "seed", "updates")  # fmt: skip


def cadence_of(asked: Any) -> Cadence:
    """How often something happens beside training.

    Raises:
        Refused: a number that makes no sense.
    """
    for name, low in {"checkpoint_every": 1, "log_every": 1, "preview_every": 0, "made": 2}.items():
        if getattr(asked, name) < low:
            raise Refused(f"`{name}` must be at least {low}, got {getattr(asked, name)}")
    return Cadence(asked.updates, asked.checkpoint_every, asked.log_every, asked.preview_every)


def plan_of(asked: Any) -> StudentPlan:
    """Everything that decides the student; cheap refusals first, then the teacher, then the data."""
    refuse_student(asked.out, resume=asked.resume)
    if asked.data is not None:
        training.refuse_place(asked.out, Path(asked.data), True)
    precision = resolve_precision(asked.precision, asked.device)
    method = "tuning" if asked.method == "consistency" else asked.method
    begin = None if asked.start == "auto" else _whole(asked.start)
    if begin is not None:  # what cannot be is refused before anything is loaded
        _recipe(asked, method, begin, precision, again=True)
    teacher = ddim.load(asked.model, device=asked.device)
    if begin is None:
        begin = _measured(asked, teacher) if method == "progressive" else 1
    again = teacher.prediction == "eps" and method == "progressive"
    recipe = _timed(asked, _recipe(asked, method, begin, precision, again=again), teacher)
    images = _images(asked, teacher)
    latent.encoded(images, teacher.checkpoint.autoencoder, asked, measured=False)  # kept for the plan, under a bar
    init = None if asked.init is None else ddim.load(asked.init, device=asked.device)
    return StudentPlan(asked.out, teacher, images, recipe, words_of(asked), asked.device, init)


def _measured(asked: Any, teacher: ddim.Model) -> int:
    """From how many steps on the teacher is good; a run that goes on has measured already."""
    if asked.resume:
        return int(stored_student(asked.out)["start"])
    return good_start(teacher, asked.to, asked.solver, asked.guidance, tell=lambda words: print(words, file=sys.stderr))


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 2:
        raise Refused(f"`start` is a number of steps from 2, or auto; got {text!r}")
    return int(text)


def _recipe(asked: Any, method: str, begin: int, precision: str, *, again: bool) -> StudentRecipe:
    if method != "progressive":
        stages: tuple[int, ...] = (asked.to,)
    elif asked.stages is not None:
        own = tuple(numbers(asked.stages, "--stages"))
        stages = (begin, *own) if again else own
    else:
        stages = StudentRecipe.halvings(begin, asked.to, again)
    same = {name: getattr(asked, "grad_clip" if name == "clip" else name) for name in SAME}
    return StudentRecipe(method, begin, stages, precision=precision, **same)


def _timed(asked: Any, recipe: StudentRecipe, teacher: ddim.Model) -> StudentRecipe:
    """With the student's own times; a run that goes on keeps those it found tuned when it began."""
    if asked.tau is None:
        return recipe
    if asked.tau != "tuned":
        found = typed.times(asked.tau, whole=teacher.process.discrete)
    else:
        begun = stored_student(asked.out).get("tau") if asked.resume else None
        found = begun or list(teacher.tau(recipe.stages[-1], "tuned"))
    return dataclasses.replace(recipe, tau=tuple(found))


def _images(asked: Any, teacher: ddim.Model) -> Images:
    c, h, w = teacher.picture_shape
    if asked.data is not None:
        return training.checked_images(
            asked.data, size=f"{h}x{w}", fit="crop", channels=3 if c == 3 else 1, skip_unreadable=False,
            labels=teacher.num_classes is not None,
        )  # fmt: skip
    with show.progress(asked.made, "of the teacher's own pictures") as bar:
        return own_images(teacher, asked.made, guidance=asked.guidance, progress=lambda done, total: bar(done))


def words_of(asked: Any) -> str:
    """The command that makes this student, without what does not matter to the result."""
    words = ["ddim", "distil", str(asked.model), *([] if asked.data is None else [asked.data]), "--out", str(asked.out)]
    for f in dataclasses.fields(asked):
        value = getattr(asked, f.name)
        if f.name in ("model", "data", "out", "resume") or value == f.default:
            continue
        words += [flag_of(f.name)] if value is True else [flag_of(f.name), str(value)]
    return shlex.join(words)


def distilled(plan: StudentPlan, cadence: Cadence, *, resume: bool) -> None:
    """Make the student under a bar; a signal stops after the update in hand, with a checkpoint."""
    recipe = plan.recipe
    clips = plan.teacher.clips
    way = " -> ".join(map(str, (recipe.start, *recipe.stages))) if recipe.progressive else recipe.method
    said = "; its clip of x0 is folded in" if clips and recipe.method != "tuning" else ""
    main = share_of(os.environ).rank == 0
    if main:
        print(f"{way}: {recipe.updates} updates a stage, {recipe.precision}{said}", file=sys.stderr)
    total = recipe.updates * len(recipe.stages)
    told, clock = time.monotonic(), Clock(total)
    live = main and sys.stderr.isatty()
    last: Learned | None = None
    with (
        training.signals() as caught,
        tqdm(total=total, unit=" update", file=sys.stderr, disable=not live) as bar,
    ):
        for last in distil_run(plan, cadence, lambda: bool(caught), resume=resume):
            clock.tick(last.done)
            bar.set_postfix_str(_words(last, clock), refresh=False)
            bar.update(last.done - bar.n)
            if main and not live and time.monotonic() - told >= EVERY:
                told = time.monotonic()
                print(f"update {last.done} of {total}: {_words(last, clock)}", file=sys.stderr)
    if caught and (last is None or last.done < total):
        again = f"ddim distil --resume {shlex.quote(str(plan.run))}"
        print(
            f"ddim: stopped at update {0 if last is None else last.done}, saved; go on with: {again}", file=sys.stderr
        )
        sys.exit(128 + caught[0])
    steps = plan.recipe.stages[-1]
    if main:
        print(f"{plan.run}: a student of {steps} step{'s' * (steps > 1)}; now: ddim sample {plan.run} --out DIR")


def _words(p: Learned, clock: Clock) -> str:
    left = "" if clock.left is None else f", {show.duration(clock.left)} left"
    return f"to {p.steps} steps, loss {p.progress.smooth_loss:.4f}{left}"
