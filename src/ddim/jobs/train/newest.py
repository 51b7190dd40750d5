"""The checkpoint a run goes on from: the newest whole one. A damaged one is set aside, never removed, and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ddim.jobs.train.state import TrainState, checkpoints, load_checkpoint
from ddim.refused import Refused

ASIDE = ".damaged"


def load_newest(folder: Path, state: TrainState[Any]) -> dict[Path, str]:
    """Put the newest whole checkpoint of a state folder into a fresh state; what is damaged, and how.

    Raises:
        Refused: there are checkpoints and none is whole; says what is wrong with the newest.
    """
    damaged: dict[Path, str] = {}
    for path in reversed(checkpoints(folder)):
        try:
            load_checkpoint(path, state)
        except Refused as error:
            damaged[path] = str(error)
        else:
            return damaged
    if damaged:
        raise Refused(f"{next(iter(damaged.values()))}; no other checkpoint is whole: start a new run")
    return damaged


def set_aside(damaged: dict[Path, str], state: TrainState[Any]) -> list[str]:
    """Rename them, so that they do not count as the newest again; what to tell of each."""
    notes = []
    for path, why in damaged.items():
        path.replace(path.with_name(path.name + ASIDE))
        notes.append(f"{why}; going on from step {state.step}, it is kept as {path.name}{ASIDE}")
    return notes
