"""Snapshots of a run's averages: few enough for any disk, enough to rebuild averages of other lengths from them.

RUN/averages/step-N.safetensors, in half precision: what rounding adds is less than what is left over between snapshots.
Where they lie follows from the number of steps alone, so that whoever reads them knows if one is missing.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim.files import VERSION, read_tensors, sweep, write_tensors
from ddim.jobs.train.state import STATE, TrainState, checkpoints, step_of
from ddim.nets import Powers
from ddim.refused import Refused

AVERAGES, WORDS = "averages", "averages"
FINEST, MOST = 16, 24  # steps between the first snapshots; snapshots, beside that of each checkpoint
_NAME = re.compile(r"step-(\d{8})\.safetensors")


class Snapshot(NamedTuple):
    """Averages after `step` steps, the last `step - since` of them followed; weights by name for each length."""

    step: int
    since: int
    weights: dict[float, dict[str, Tensor]]


def snapshot_spacing(updates: int) -> int:
    """Steps between the snapshots of a run that has followed so many: doubled whenever there would be more than MOST.

    So there are MOST/2 to MOST, at its multiples: later ones are among the earlier ones.
    """
    every = FINEST
    while updates > MOST * every:
        every *= 2
    return every


def snapshot_steps(since: int, step: int, every: int) -> list[int]:
    """Steps of the snapshots up to that of `step`."""
    return sorted({*range(since + every, step + 1, every), step})


def snapshot_files(run: Path) -> dict[int, Path]:
    """The files there are, by step, in order."""
    found = {int(m[1]): p for p in (run / AVERAGES).glob("step-*") if (m := _NAME.fullmatch(p.name))}
    return dict(sorted(found.items()))


def follow(run: Path, state: TrainState[Any], on: bool) -> None:
    """Begin to follow the averages, or go on, or leave them; what a run that goes on will write anew is removed.

    A run that did not follow them so far does so from its present step on.
    """
    if not on:
        state.powers = None
        return
    if state.powers is None:
        state.powers = Powers(state.unwrapped, since=state.step)
    if state.accelerator.is_main_process:
        (run / AVERAGES).mkdir(exist_ok=True)
        sweep(run / AVERAGES)
        for step, path in snapshot_files(run).items():
            if step > state.step:
                path.unlink()


def keep_snapshot(run: Path, state: TrainState[Any], *, due_only: bool = False) -> None:
    """Keep the averages of this step; with `due_only` where its number says so."""
    powers = state.powers
    if powers is None or not powers.updates or (due_only and powers.updates % snapshot_spacing(powers.updates)):
        return
    path = run / AVERAGES / f"step-{state.step:08d}.safetensors"
    tensors = {
        f"{length}/{name}": _half(value)
        for length, shadow in zip(powers.lengths, powers.shadows, strict=True)
        for name, value in shadow.items()
    }
    words = {"step": state.step, "since": powers.since, "lengths": powers.lengths, "ddim": VERSION}
    write_tensors(path, tensors, {WORDS: json.dumps(words)})  # one key: the file keeps several in no certain order


def thin(run: Path, state: TrainState[Any]) -> None:
    """Remove the snapshots that no checkpoint there is would go on from or end with."""
    if state.powers is None:
        return
    since = state.powers.since
    ends = [step for step in map(step_of, checkpoints(run / STATE)) if step > since]
    wanted = {step for end in ends for step in snapshot_steps(since, end, snapshot_spacing(end - since))}
    for step, path in snapshot_files(run).items():
        if since < step <= state.step and step not in wanted:  # those before were followed from an earlier step on
            path.unlink()


def read_snapshot(path: Path) -> Snapshot:
    """One of them.

    Raises:
        Refused: damaged, or not what its name says.
    """
    tensors, words = read_tensors(path)
    try:
        step, since, lengths = (json.loads(words[WORDS])[name] for name in ("step", "since", "lengths"))
        weights: dict[float, dict[str, Tensor]] = {float(length): {} for length in lengths}
        for name, value in tensors.items():
            length, _, own = name.partition("/")
            weights[float(length)][own] = value
    except (LookupError, TypeError, ValueError) as error:
        raise Refused(
            f"{path} is no snapshot of averages ({error!r}); remove it, or bring the right one back"
        ) from None
    if path.name != f"step-{step:08d}.safetensors":
        raise Refused(f"{path} is the snapshot of step {step} by another name; give it its own name back")
    return Snapshot(step, since, weights)


def _half(value: Tensor) -> Tensor:
    """In half precision, unless a number is too large for it."""
    half = value.to(torch.float16)
    return half if bool(torch.isfinite(half).all()) else value
