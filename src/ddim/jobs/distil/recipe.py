"""What decides a student: every number that changes its weights, and the stages in which it is made."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from dataclasses import dataclass
from typing import Any

from ddim.refused import Refused
from ddim.solve import solver_named

METHODS = ("progressive", "tuning", "distillation")


@dataclass(frozen=True)
class StudentRecipe:
    """One student.

    Args:
        method: "progressive" (arXiv 2202.00512), or a consistency student by "tuning" (locuslab/ect) or by
            "distillation" with the teacher's steps (arXiv 2303.01469).
        start: the teacher's steps, of "progressive"; else unused.
        stages: steps of the student after each stage, falling, each dividing the one before; of a consistency student
            one number, the calls it is for.
        tau: times of the last stage's student, the noisiest first, then 0; () for even ones.
        updates: optimizer steps of each stage.
        loss: weights of "progressive": "v" (SNR + 1 on x0) or "x0" (truncated SNR, max(SNR, 1)).
        solver: the first teacher's. guidance: its weight; 1 for none.
        batch_size, accumulation, clip, ema, label_dropout, flip, precision, seed: as of `Recipe`.
        lr: falls linearly to 0 in every stage after `warmup` updates.
        q, mean, std: of a consistency student, see `Consistency`.

    Raises:
        Refused: a number outside its range, or stages that do not divide.
    """

    method: str = "progressive"
    start: int = 16
    stages: tuple[int, ...] = (8, 4)
    updates: int = 1000
    loss: str = "v"
    solver: str = "ddim"
    guidance: float = 1.0
    batch_size: int = 64
    accumulation: int = 1
    lr: float = 3e-4
    warmup: int = 20
    clip: float = 1.0
    ema: float = 0.0
    label_dropout: float = 0.1
    flip: bool = False
    q: float = 4.0
    mean: float = -1.1
    std: float = 2.0
    precision: str = "fp32"
    seed: int = 0
    tau: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, low in {"batch_size": 1, "accumulation": 1, "updates": 1, "warmup": 0, "seed": 0, "start": 1}.items():
            if getattr(self, name) < low:
                raise Refused(f"`{name}` must be at least {low}, got {getattr(self, name)}")
        for name in ("lr", "clip", "std"):
            if not 0 < getattr(self, name) < math.inf:
                raise Refused(f"`{name}` must be above 0, got {getattr(self, name)}")
        for name in ("ema", "label_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise Refused(f"`{name}` must be at least 0 and below 1, got {getattr(self, name)}")
        if not self.q > 1:
            raise Refused(f"`q` must be above 1, got {self.q}")
        if self.method not in METHODS or self.loss not in ("v", "x0"):
            raise Refused(
                f"`method` is one of {', '.join(METHODS)}, `loss` v or x0; got {self.method!r}, {self.loss!r}"
            )
        if self.batch_size % self.accumulation:
            raise Refused(f"`batch_size` = {self.batch_size} is no multiple of `accumulation` = {self.accumulation}")
        if solver_named(self.solver).stochastic:
            raise Refused(f"a teacher must be deterministic, and `solver` {self.solver} injects noise")
        if not self.stages or min(self.stages) < 1:
            raise Refused(f"a student takes at least 1 step, got `stages` {list(self.stages)}")
        if self.progressive:
            for many, few in itertools.pairwise((self.start, *self.stages)):
                if many % few or (few == many and many != self.start):
                    raise Refused(f"{few} steps do not divide the {many} they are to stand for; choose a power of two")
            if self.tau and len(self.tau) != self.stages[-1] + 1:
                raise Refused(
                    f"a student of {self.stages[-1]} steps has as many times and 0, got `tau` {list(self.tau)}"
                )
        elif self.tau:
            raise Refused("a consistency student may be asked at any time: leave `tau` out")
        elif len(self.stages) != 1:
            raise Refused(f"a consistency student is made in one stage, got {list(self.stages)}")

    @staticmethod
    def halvings(start: int, to: int, again: bool = False) -> tuple[int, ...]:
        """The stages from a teacher of `start` steps to a student of `to`: every half in between.

        Args:
            again: begin with a stage of as many steps as the teacher's, in which the student learns another prediction.

        Raises:
            Refused: `to` is no half of a half of .. `start`.
        """
        found = [start]
        while found[-1] > to and found[-1] % 2 == 0:
            found.append(found[-1] // 2)
        if found[-1] != to or (len(found) == 1 and not again):
            raise Refused(f"`to` {to} cannot be had by halving `start` {start}: take powers of two, `to` below `start`")
        return tuple(found if again else found[1:])

    @property
    def progressive(self) -> bool:
        """Whether the student is one of DDIM's jumps, not a consistency function."""
        return self.method == "progressive"

    def as_dict(self) -> dict[str, Any]:
        """Its fields, for JSON; `tau` where it has any, as recipes before it had none."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "tau" or value}

    def stage(self, index: int) -> Stage:
        """The pace of one stage."""
        return Stage(self, index)


@dataclass(frozen=True)
class Stage:
    """One stage as the training loop sees a run: updates counted from 0, a seed of its own."""

    recipe: StudentRecipe
    index: int
    optimizer: str = "adam"
    weight_decay: float = 0.0

    @property
    def steps(self) -> int:
        """The student's."""
        return self.recipe.stages[self.index]

    @property
    def seed(self) -> int:
        """Another one in every stage, so that no stage repeats the noise of another."""
        text = f"stage/{self.index}/{self.recipe.seed}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "little")

    @property
    def batch_size(self) -> int:
        return self.recipe.batch_size

    @property
    def accumulation(self) -> int:
        return self.recipe.accumulation

    @property
    def lr(self) -> float:
        return self.recipe.lr

    @property
    def clip(self) -> float:
        return self.recipe.clip

    @property
    def ema(self) -> float:
        return self.recipe.ema

    @property
    def precision(self) -> str:
        return self.recipe.precision

    def lr_at(self, step: int) -> float:
        """The learning rate of update 0, 1, ...: warm-up, then linearly to 0 at the end of the stage."""
        rise = min(1.0, (step + 1) / max(1, self.recipe.warmup))
        return self.recipe.lr * rise * max(0.0, 1.0 - step / self.recipe.updates)
