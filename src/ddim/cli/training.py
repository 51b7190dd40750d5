"""`ddim train` beside its options: what is checked first, the bar, the signals, out of memory in plain words."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tqdm import tqdm

from ddim.cli.show import duration
from ddim.cli.typed import size_of, typed_size
from ddim.cli.watch import Watch
from ddim.data import Images, open_images
from ddim.files import reach
from ddim.jobs import (
    Cadence,
    Course,
    DenoiserRun,
    Pace,
    Plan,
    TrainState,
    followed,
    opened,
    refuse_existing,
    smaller,
)
from ddim.nets import PRESETS
from ddim.refused import Refused

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from ddim.checkpoints import Checkpoint
    from ddim.nets import Autoencoder
    from ddim.pixels import Fit

LARGEST = 256  # pixels a side; beyond, a network has to be asked for by name
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


def cadence_of(asked: Mapping[str, Any]) -> Cadence:
    """How often something happens beside training.

    Raises:
        Refused: a number that makes no sense.
    """
    least = {"max_steps": 1, "checkpoint_every": 1, "log_every": 1, "preview_every": 0}
    for name, low in least.items():
        if asked[name] < low:
            raise Refused(f"`{name}` must be at least {low}, got {asked[name]}")
    others = ("preview_precision", "snapshots")
    return Cadence(**{name: asked[name] for name in (*least, *others) if name in asked})


def words_of(asked: DataclassInstance, ancestor: Mapping[str, Any] | None, command: str = "train") -> str:
    """The command that makes this run: data, --out and what was given, without what does not matter to the result."""
    data, out, *more = dataclasses.fields(asked)
    words = ["ddim", command, getattr(asked, data.name), "--out", str(getattr(asked, out.name))]
    for f in more:
        value = getattr(asked, f.name)
        if f.name == "init" and value is None and ancestor is not None:
            value = ancestor["source"]
        if value != f.default and f.name != "resume":
            flag = "--" + f.name.replace("_", "-")
            words += [flag] if value is True else [f"--no-{flag[2:]}"] if value is False else [flag, str(value)]
    return shlex.join(words)


def refuse_place(out: Path, data: Path, resume: bool) -> None:
    """Before the data is read.

    Raises:
        Refused: a run folder inside the images' folder, one that is there, or that cannot be made.
    """
    real = Path(os.path.realpath(out))  # `resolve` is at a loss where a link leads to itself
    if data.is_dir() and real.is_relative_to(data.resolve()):
        raise Refused(
            f"--out {out} lies inside the images' folder {data}, so that its previews would become data; "
            "choose one outside"
        )
    if resume:
        return
    refuse_existing(out)
    reach(out, folder=True)


def checked_images(
    data: str, *, size: str | None, fit: Fit, channels: Literal[1, 3] | None, skip_unreadable: bool, labels: bool
) -> Images:
    """The data, every image of it looked at under a bar; what was found is told on stderr."""
    bar: tqdm[Any] | None = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        bar = bar or tqdm(total=total, unit=" images", desc="data check", disable=not sys.stderr.isatty(), delay=2)
        bar.update(done - bar.n)

    try:
        images = open_images(
            data, size=size_of(size), fit=fit, channels=channels, skip_unreadable=skip_unreadable, labels=labels,
            progress=progress,
        )  # fmt: skip
    finally:
        if bar is not None:
            bar.close()
    for line in images.report.lines():
        print(line, file=sys.stderr)
    return images


def labelled(asked: str, images: Images) -> bool:
    """Whether the classes are learnt.

    Raises:
        Refused: they shall be, and there are none.
    """
    classes = images.report.classes or {}
    if asked == "use" and not classes:
        raise Refused(f"--labels use: {images.report.source} has no classes; use a folder per class or a label column")
    return sum(n > 0 for n in classes.values()) >= 2 if asked == "auto" else asked == "use"


def preset_of(
    name: str | None, images: Images, init: Checkpoint | None = None, autoencoder: Autoencoder | None = None
) -> str:
    """The network of that name, or that of `init`, or the one for images, or latents, of this size.

    Raises:
        Refused: an unknown name; images larger than any network here is for.
    """
    if name is None and init is not None:
        told = init.meta.get("provenance")
        name = told.get("preset") if isinstance(told, Mapping) else None
        name = next((preset for preset in PRESETS if preset == name), None)
    if name is not None:
        if name not in PRESETS:
            raise Refused(f"unknown --preset {name!r}; choose one of {', '.join(PRESETS)}")
        return name
    c, h, w = images.shape if autoencoder is None else autoencoder.latent_shape(images.shape)
    side = max(h, w)
    if side <= 16 and autoencoder is None:
        return "digits"
    if side <= 32:
        return "mnist" if c == 1 else "cifar10-small"
    if side > LARGEST:
        what = "images" if autoencoder is None else "latents"
        raise Refused(f"the {what} are {h}x{w}: no network here is for so large ones; give --size 64, or --size 128")
    return "64" if side <= 64 else "128"


def trained(plan: Plan, cadence: Cadence, *, resume: bool) -> None:
    """Train a denoiser under a bar."""
    classes = f", {len(plan.images.class_names or ())} classes" if plan.labelled else ""
    state = under_bar(
        DenoiserRun(plan), cadence, "train", f"preset {plan.preset}", classes, resume=resume,
        advice=lambda left: _too_much(plan, left),
    )  # fmt: skip
    if state.accelerator.is_main_process:
        now = f"ddim sample {plan.run} --out DIR"
        print(f"{plan.run}: {state.step} steps, loss {state.smooth_loss:.4f}; now: {now}")


def _too_much(plan: Plan, seconds: float) -> str:
    """Of a network that takes so long, and one that does not."""
    found, other = smaller(plan, seconds), ""
    if found is not None:
        size = "" if found.size == plan.images.shape[1:] else f" --size {typed_size(found.size)}"
        other = f"--preset {found.preset}{size} takes about {duration(found.seconds)}; "
    return f"preset {plan.preset} is too much for this machine. {other}"


def under_bar(
    course: Course[Any], cadence: Cadence, command: str, what: str, more: str = "", *, advice: Callable[[float], str],
    resume: bool,
) -> TrainState[Any]:  # fmt: skip
    """Train to the end, or until a signal: that stops after the step in hand, with a checkpoint, and exits.

    Args:
        command: by which the run goes on. what, more: what is trained, said before and after its size.
        advice: see `Watch`.
    """
    state = opened(course, cadence.max_steps, resume=resume)
    main = state.accelerator.is_main_process
    if main:
        size = sum(p.numel() for p in state.unwrapped.parameters()) / 1e6
        print(f"{what}: {size:.2f}M parameters{more}, {course.recipe.precision}", file=sys.stderr)
        for note in state.notes:
            print(f"note: {note}", file=sys.stderr)
    watch = Watch(course.recipe.batch_size, state.step, cadence.max_steps, main=main, advice=advice)
    with signals() as caught, watch:
        for p in followed(course, state, cadence, lambda: bool(caught), watch.say):
            watch.step(p)
    if caught or state.step < cadence.max_steps:  # this process was told to stop, or another one
        if main:
            again = f"ddim {command} --resume {shlex.quote(str(course.run))}"
            print(f"ddim: stopped at step {state.step}, checkpoint saved; go on with: {again}", file=sys.stderr)
        sys.exit(128 + (caught[0] if caught else signal.SIGTERM))
    return state


@contextmanager
def memory(recipe: Pace) -> Iterator[None]:
    """Out of memory, in whoever's words, as a mistake with its remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError; its CPU side has no name
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        raise Refused(
            f"out of memory with --batch-size {recipe.batch_size} in {recipe.accumulation} part(s); "
            f"split it: --accumulation {_more_parts(recipe)} gives the same result but for rounding, also "
            "with --resume; a smaller --batch-size needs a new run"
        ) from None


def _more_parts(recipe: Pace) -> int:
    """The next number of parts that the batch can be split in; the batch itself at the end."""
    more = range(2 * recipe.accumulation, recipe.batch_size)
    return next((n for n in more if recipe.batch_size % n == 0), recipe.batch_size)


@contextmanager
def signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted, so that the step in hand is finished and saved; a second one interrupts."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
