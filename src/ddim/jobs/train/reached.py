"""How far a run has come, from what lies in its folder."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import NamedTuple

from ddim.jobs.job import RECIPE
from ddim.jobs.train.log import LOG, lines
from ddim.jobs.train.run import provenance, stored_recipe
from ddim.jobs.train.state import STATE, checkpoints, step_of
from ddim.stored import WORD, checked


class Standing(NamedTuple):
    """A run as its folder tells it; None where it does not.

    Attributes:
        steps: done and saved. images: seen in them.
        data, command: where the images lie, and the words the run was begun or last gone on with.
        loss: the smoothed one of the log's last line, of step `logged`.
        speed: images a second, the median of the log's last lines.
    """

    steps: int
    images: int
    batch_size: int
    data: str | None
    command: str | None
    logged: int | None
    loss: float | None
    speed: float | None

    def left(self, max_steps: int) -> float | None:
        """Seconds to that step at the speed of the log."""
        return None if not self.speed else max(0, max_steps - self.steps) * self.batch_size / self.speed


def standing(run: Path) -> Standing | None:
    """How far the run in this folder has come; None if it is no run.

    Raises:
        Refused: its recipe, or its provenance, is damaged.
    """
    if not (run / STATE / RECIPE).is_file():
        return None
    recipe = stored_recipe(run)
    found = checkpoints(run / STATE)
    steps = step_of(found[-1]) if found else 0
    told = [line for line in lines(run / LOG) if "retreat_from" not in line]
    speeds = [line["images_per_second"] for line in told[-20:] if line.get("images_per_second")]
    batch = recipe.get("batch_size") or 0
    about = checked(provenance(run), {"data": WORD, "command": WORD}, f"the provenance in {run / 'ddim.json'}")
    return Standing(
        steps, steps * batch, batch, recipe.get("source") or about.get("data"),
        recipe.get("command") or about.get("command"), told[-1]["step"] if told else None,
        told[-1].get("smooth_loss") if told else None, statistics.median(speeds) if speeds else None,
    )  # fmt: skip
