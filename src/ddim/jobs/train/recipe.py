"""What decides a training run: every number that changes the weights, and nothing else.

A run resumes only under the recipe it began with; how often it logs or saves, and where it stops, is not
part of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim.jobs.job import differences, plain
from ddim.jobs.train.misfits import DDPM, refuse_misfits
from ddim.jobs.train.pace import PACE, rate_at, refuse_pace
from ddim.process import (
    KINDS,
    USUAL,
    Continuous,
    Objective,
    Schedule,
    TimeLabel,
    process_of,
    usual_label,
    usual_unit_input,
)
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
    is_number,
    is_whole,
    listed,
    object_from_json,
)

SCHEDULES = ("linear", "scaled_linear", "cosine", "sigmoid")
MOST_TIMES = 100_000  # of a schedule: a table of them is kept in every model folder
LEVELS = 232  # NCSN's number of noise levels for 32 x 32 images (arXiv 2006.09011, table 1)
NEW = ("process", "draws", "sigma_min", "sigma_max", "data_std")
"""Fields that runs of 0.1 do not have; they are stored where they are not as usual."""
MAY_CHANGE = ("accumulation", "command", "source")
"""On resume: rounding at most; the words it was begun with; where the weights it began from lie."""


FIELDS: dict[str, Rule] = {
    **PACE,
    **dict.fromkeys(("prediction", "schedule", "process", "draws"), WORD),
    "timesteps": counted(1, MOST_TIMES),
    **dict.fromkeys(("min_snr_gamma", "sigma_min", "sigma_max", "data_std"), POSITIVE),
    "label_dropout": NUMBER,
    "zero_terminal_snr": FLAG,
}
"""Of a recipe, each with its type; what lies in its range is asked for all of them together."""
STORED: dict[str, Rule] = {
    **FIELDS,
    **dict.fromkeys(("preset", "data", "source", "command", "init", "autoencoder"), WORD),
    "shape": (
        "three whole numbers from 1",
        lambda v: v if len(listed(v, lambda n: is_whole(n, 1)) or ()) == 3 else None,
    ),
    "conditional": FLAG,
    "tau": ("a list of numbers", lambda v: v if listed(v, is_number) else None),
}
"""What a run stores beside its recipe."""


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Args:
        process: "ddpm", the schedule of whole times, or a continuous one: "vp", "subvp", "ve", "edm", "flow".
        prediction, min_snr_gamma: see `Objective`; None is what is usual on the process ("v" on a schedule).
        draws: the law of the times trained on, see `process.draw_times`; None is what is usual on the process.
        sigma_min, sigma_max: the ends of the noise of "ve" and "edm", in place of the usual ones. data_std: of the
            prediction "edm".
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

    prediction: str | None = None
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
    process: str = DDPM
    draws: str | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    data_std: float = 0.5

    def __post_init__(self) -> None:
        checked(vars(self), FIELDS, "a training run")
        missing = [f.name for f in dataclasses.fields(self) if f.default is not None and getattr(self, f.name) is None]
        if missing:
            raise Refused(f"a training run needs {missing[0]}, got None")
        if not 0 <= self.label_dropout < 1:
            raise Refused(f"label_dropout must be at least 0 and below 1, got {self.label_dropout}")
        refuse_pace(self)
        if self.process not in (DDPM, *KINDS):
            raise Refused(f"unknown process {self.process!r}; choose one of {', '.join((DDPM, *KINDS))}")
        if self.prediction is None:
            object.__setattr__(self, "prediction", "v" if self.process == DDPM else USUAL[self.process].prediction)
        refuse_misfits(self)
        if self.zero_terminal_snr and self.prediction == "eps":
            raise Refused("eps prediction cannot be trained with zero terminal SNR; use prediction v or x0")
        self.objective()
        self.noise_process()

    def objective(self) -> Objective:
        """The loss."""
        return Objective(self._said, self.min_snr_gamma, self.data_std, self.unit_input)

    @property
    def _said(self) -> str:
        assert self.prediction is not None  # since __post_init__
        return self.prediction

    @property
    def unit_input(self) -> bool:
        """Whether the network is shown x_t at unit variance."""
        return self.process != DDPM and usual_unit_input(self.process, self._said)

    @property
    def law(self) -> str:
        """The law of the times trained on."""
        return self.draws or ("uniform" if self.process == DDPM else USUAL[self.process].draws)

    @property
    def time_label(self) -> TimeLabel | None:
        """What the network is told of time; None where that is t - 1."""
        return None if self.process == DDPM else usual_label(self.process, self._said)

    def noise_process(self) -> Schedule | Continuous:
        """The process trained on.

        Raises:
            Refused: a schedule's name that is none, numbers that make no process.
        """
        if self.process == DDPM:
            return self.noise_schedule()
        ends = {n: v for n in ("sigma_min", "sigma_max") if (v := getattr(self, n)) is not None}
        return process_of(self.process, ends)

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
        """The learning rate of step 0, 1, ..."""
        return rate_at(self, step)

    def as_dict(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        usual = {f.name: f.default for f in dataclasses.fields(self)}
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in NEW or v != usual[k]}


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
