"""What decides a training run: every number that changes the weights, and nothing else.

A run resumes only under the recipe it began with; how often it logs or saves, and where it stops, is not
part of it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ddim.jobs.job import differences, plain
from ddim.process import Objective, Schedule
from ddim.refused import Refused
from ddim.stored import (
    FLAG,
    NUMBER,
    POSITIVE,
    WORD,
    Rule,
    checked,
    content_of,
    counted,
    is_whole,
    listed,
    object_from_json,
)

SCHEDULES = ("linear", "scaled_linear", "cosine", "sigmoid")
PREDICTIONS = ("eps", "x0", "v")  # what a model folder can say of itself
MOST_TIMES = 100_000  # of a schedule: a table of them is kept in every model folder
MAY_CHANGE = ("accumulation", "command", "source")
"""On resume: rounding at most; the words it was begun with; where the weights it began from lie."""


FIELDS: dict[str, Rule] = {
    **dict.fromkeys(("prediction", "schedule", "optimizer", "precision"), WORD),
    **dict.fromkeys(("batch_size", "accumulation"), counted(1)),
    "timesteps": counted(1, MOST_TIMES),
    **dict.fromkeys(("warmup", "lr_decay_steps", "seed"), counted(0)),
    **dict.fromkeys(("min_snr_gamma", "lr", "clip"), POSITIVE),
    **dict.fromkeys(("weight_decay", "ema", "label_dropout"), NUMBER),
    **dict.fromkeys(("zero_terminal_snr", "flip"), FLAG),
}
"""Of a recipe, each with its type; what lies in its range is asked for all of them together."""
STORED: dict[str, Rule] = {
    **FIELDS,
    **dict.fromkeys(("preset", "data", "source", "command", "init"), WORD),
    "shape": (
        "three whole numbers from 1",
        lambda v: v if len(listed(v, lambda n: is_whole(n, 1)) or ()) == 3 else None,
    ),
    "conditional": FLAG,
}
"""What a run stores beside its recipe."""


class Pace(Protocol):
    """What the loop and its state have to know of any recipe; each is as `Recipe` says."""

    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def accumulation(self) -> int: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def ema(self) -> float: ...
    @property
    def precision(self) -> str: ...
    def lr_at(self, step: int) -> float: ...


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Args:
        prediction, min_snr_gamma: see `Objective`.
        schedule, timesteps: a schedule's name and its T; zero_terminal_snr: rescale it (needs "v" or "x0").
        batch_size: images of one optimizer step, over all processes; accumulation splits them in equal parts.
        optimizer: "adam" or "adamw"; lr: its rate after a linear warm-up over `warmup` steps; with
            `lr_decay_steps` it falls as a cosine to lr/100 at that step and stays there.
        clip: largest gradient norm. ema: decay of the averaged weights.
        label_dropout: how often a class is replaced by the null label, in [0, 1). flip: mirror at random.
        precision: "fp32", "bf16" or "fp16" ("auto" is resolved before a recipe is stored).

    Raises:
        Refused: a number outside its range.
    """

    prediction: str = "v"
    min_snr_gamma: float | None = None
    schedule: str = "linear"
    timesteps: int = 1000
    zero_terminal_snr: bool = False
    batch_size: int = 64
    accumulation: int = 1
    optimizer: str = "adamw"
    lr: float = 2e-4
    warmup: int = 500
    lr_decay_steps: int | None = None
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    label_dropout: float = 0.1
    flip: bool = False
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        checked(vars(self), FIELDS, "a training run")
        missing = [f.name for f in dataclasses.fields(self) if f.default is not None and getattr(self, f.name) is None]
        if missing:
            raise Refused(f"a training run needs {missing[0]}, got None")
        if self.weight_decay < 0:
            raise Refused(f"weight_decay must be at least 0, got {self.weight_decay}")
        for name in ("ema", "label_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise Refused(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.batch_size % self.accumulation:
            raise Refused(f"batch_size = {self.batch_size} is no multiple of accumulation = {self.accumulation}")
        if self.optimizer not in ("adam", "adamw"):
            raise Refused(f"optimizer must be adam or adamw, got {self.optimizer!r}")
        if self.lr_decay_steps is not None and self.lr_decay_steps <= self.warmup:
            raise Refused(f"lr_decay_steps = {self.lr_decay_steps} must lie beyond warmup = {self.warmup}")
        if self.prediction not in PREDICTIONS:
            raise Refused(f"unknown prediction {self.prediction!r}; choose one of {', '.join(PREDICTIONS)}")
        if self.zero_terminal_snr and self.prediction == "eps":
            raise Refused("eps prediction cannot be trained with zero terminal SNR; use prediction v or x0")
        self.objective()
        self.noise_schedule()

    def objective(self) -> Objective:
        """The loss."""
        return Objective(self.prediction, self.min_snr_gamma)

    def noise_schedule(self) -> Schedule:
        """The schedule of that name with T steps.

        Raises:
            Refused: an unknown name.
        """
        if self.schedule not in SCHEDULES:
            raise Refused(f"unknown schedule {self.schedule!r}; choose one of {', '.join(SCHEDULES)}")
        made: Schedule = getattr(Schedule, self.schedule)(self.timesteps)
        return made.zero_terminal_snr() if self.zero_terminal_snr else made

    def lr_at(self, step: int) -> float:
        """The learning rate of step 0, 1, ...: warm-up, then flat or a cosine down to lr/100."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.lr_decay_steps is None:
            return self.lr
        u = min(1.0, (step - self.warmup) / (self.lr_decay_steps - self.warmup))
        return self.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * u)))

    def as_dict(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return dataclasses.asdict(self)


def read_recipe(path: Path, run: Path) -> dict[str, Any]:
    """What a run stored when it began.

    Raises:
        Refused: there is nothing, or it is damaged; names the run or the file.
    """
    if not path.exists():
        raise Refused(f"{run} holds no run to resume (no {path.relative_to(run)}); start one without `resume`")
    return checked(object_from_json(content_of(path), f"{path} is damaged: it"), STORED, f"{path} is damaged")


def difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first field in which two recipes differ, in words, or None; what may change on resume is no difference."""
    for name in differences(stored, plain(wanted)):
        if name == "data":
            return "the images changed"
        if name not in MAY_CHANGE:
            return f"{name} was {stored.get(name)} and is now {wanted.get(name)}"
    return None
