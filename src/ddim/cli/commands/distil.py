"""`ddim distil MODEL [DATA] --out RUN`: a student that needs one to four calls, made stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddim.cli import learning, options
from ddim.cli.typed import SPELLED
from ddim.refused import Refused


@options.command
class Command(learning.OfBatches, learning.OfClasses):
    """Make a student of a trained model: progressive distillation halves its steps, consistency goes to one or two.

    The run folder is the student. Without DATA the teacher's own pictures serve, made once and kept in the cache.
    """

    model: tyro.conf.Positional[str | None] = None
    """The teacher: a bundled name, a model or run folder, a checkpoint file, a hub id; with --resume alone the run."""
    data: tyro.conf.Positional[str | None] = None
    """What the teacher was trained on: a folder, a .parquet file, a hub id. Without it the teacher's own pictures."""
    out: Path | None = None
    """The run folder: the student, stages/, state/, previews/, log.jsonl, tensorboard/."""
    to: int = 4
    """Steps of the student: 1, 2, 4 or 8; of a consistency student the most calls it is meant for."""
    start: Annotated[str, tyro.conf.arg(name=SPELLED["start"])] = "16"
    """Steps of the teacher to begin with, a power of two above --to; auto measures from how many on it is good."""
    stages: str | None = None
    """Steps of the student after each stage, as "4,2,1", each dividing the one before. Default: every half."""
    tau: str | None = None
    """Times of the finished student, as "1000,587,405,190,0", or tuned: those of `ddim tune MODEL DATA --solver ddim
    --steps TO`. Default: even ones, which diffusers' scheduler has too."""
    method: Literal["progressive", "consistency", "tuning", "distillation"] = "progressive"
    """progressive: its steps are jumps of DDIM, so latents are kept and images can be encoded. consistency (or tuning):
    one call from anywhere, from the data alone; distillation: the same with the teacher's steps."""
    init: str | None = None
    """A student whose weights the first stage begins with, in place of the teacher's: training goes on from there."""
    updates: int = 1000
    """Optimizer steps of each stage."""
    loss: Literal["v", "x0"] = "v"
    """Weights of the progressive loss: SNR + 1 on x0, which is the loss on v, or max(SNR, 1), truncated SNR."""
    solver: str = "ddim"
    """How the teacher walks in the first stage: ddim, heun, dpm++2m, ..."""
    q: float = 4.0
    """Of a consistency student: how far apart its two times are at first, r = t (1 - 1/q)."""
    made: int = 4096
    """How many of the teacher's own pictures, where there is no DATA."""
    guidance: float = 1.0
    """Weight of classifier-free guidance that is folded in: the student's one call stands for two of its teacher's."""
    lr: float = 3e-4
    """Learning rate after the warm-up; it falls to 0 in each stage."""
    warmup: int = 20
    ema: float = 0.0
    checkpoint_every: int = 200
    preview_every: int = 500
    log_every: int = 20

    def settled(self, parse: Callable[[Command], Command]) -> Command:
        """With the run's own options for those not given, where one is gone on with; `parse` reads argv over others."""
        from ddim.cli import resumed
        from ddim.jobs import stored_student

        return resumed.by_words(self, parse, "distil", stored_student) if self.resume else self

    def run(self) -> None:
        from ddim.cli import distilling, training

        if self.model is None or self.out is None:
            raise Refused(
                "say whose student, and where: ddim distil MODEL [DATA] --out RUN, or ddim distil --resume RUN"
            )
        cadence = distilling.cadence_of(self)
        plan = distilling.plan_of(self)
        with training.memory(plan.recipe.stage(0)):
            distilling.distilled(plan, cadence, resume=self.resume)
