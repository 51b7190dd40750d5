"""What "auto" means for one job: settled once, kept in the job's recipe, and the same ever after.

The batch size and compilation decide the last bits of an image, so a job that goes on, and every process that
shares it, takes what its recipe says; the first process measures.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from ddim import engine
from ddim.engine import When, fitting_batch
from ddim.files import read_json
from ddim.jobs.job import ALONE, RECIPE, Share
from ddim.refused import Refused

BatchSize = int | Literal["auto"]
WORTH_MEASURING = 200  # network calls; below it no compilation was ever repaid, and measuring costs two calls
PATIENCE = 600.0  # seconds a process waits for the first one to settle a job


class Settled(NamedTuple):
    """Images a call, whether to compile, and what was found out on the way, for people."""

    batch: int
    compiled: bool
    notes: tuple[str, ...] = ()


def settle(
    batch_size: BatchSize,
    compile: When,
    *,
    out: Path,
    n: int,
    calls_an_image: int,
    call: Callable[[int], object],
    device: torch.device,
    share: Share = ALONE,
) -> Settled:
    """Definite values for a job of n images in `out`.

    Args:
        batch_size, compile: as asked for.
        calls_an_image: network calls an image takes.
        call: runs the network once on that many images, uncompiled.
        share: this process's.

    Raises:
        Refused: a batch below 1; not even one image fits; the first process settled nothing in time.
    """
    if isinstance(batch_size, int) and batch_size < 1:
        raise Refused(f"`batch_size` must be at least 1 or auto, got {batch_size}")
    open_question = batch_size == "auto" or compile == "auto"
    short = batch_size != "auto" and math.ceil(n / share.world / batch_size) * calls_an_image < WORTH_MEASURING
    stored = _stored(out, wait=open_question and share.rank > 0 and not short)
    if stored is not None and open_question:
        batch = stored.batch if batch_size == "auto" else batch_size
        return Settled(batch, stored.compiled if compile == "auto" else compile == "always")
    notes = []
    if batch_size == "auto":
        batch_size = fitting_batch(call, device, largest=min(n, 256))
        notes.append(f"batch size {batch_size}: the largest up to 256 that fits the memory that is free")
    calls = math.ceil(n / share.world / batch_size) * calls_an_image
    if compile == "auto" and calls < WORTH_MEASURING:
        return Settled(batch_size, False, tuple(notes))
    seconds = _seconds(call, min(batch_size, n)) if compile == "auto" else 0.0
    decision = engine.compile_decision(compile, calls=calls, seconds_a_call=seconds, device=device)
    if compile != "never":
        notes.append(decision.why)
    return Settled(batch_size, decision.compile, tuple(notes))


def kept_precision(out: Path) -> str | None:
    """The number format that a job begun in `out` goes on in, as its recipe spells it; None if there is none.

    It decides where "auto" is asked for: a job begun when the default was another, or elsewhere, goes on as it began.
    """
    try:
        return str(read_json(out / RECIPE)["precision"])
    except (OSError, Refused, KeyError):
        return None  # no recipe of a sampling job: `open_job` says so if something else is there


def _stored(out: Path, wait: bool) -> Settled | None:
    """What the job's recipe says, if it has begun."""
    path, begun = out / RECIPE, time.monotonic()
    while wait and not path.exists():
        if time.monotonic() - begun > PATIENCE:
            raise Refused(f"the first process has not begun {out} in {PATIENCE:.0f} s; give `batch_size` and `compile`")
        time.sleep(0.2)
    if not path.exists():
        return None
    try:
        recipe = read_json(path)
        return Settled(int(recipe["batch"]), bool(recipe.get("compiled", False)))
    except (ValueError, KeyError, TypeError):
        return None  # no recipe of a sampling job: `open_job` says so


def _seconds(call: Callable[[int], object], rows: int) -> float:
    """Of the second of two calls."""
    for _ in range(2):
        begun = time.perf_counter()
        call(rows)
    return time.perf_counter() - begun
