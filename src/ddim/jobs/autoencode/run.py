"""A run that trains an autoencoder. RUN is its folder as diffusers loads it, beside what every run keeps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ddim.checkpoints import save_autoencoder
from ddim.data import Batch, Batches
from ddim.engine import training_attention
from ddim.jobs.autoencode.judged import Reconstructed, Reconstructions
from ddim.jobs.autoencode.plan import AutoencoderPlan
from ddim.jobs.train import BatchAt, Cadence, Course, Progress, TrainState, followed, opened
from ddim.nets import Autoencoder, Trainee


class Drawn(NamedTuple):
    """The random numbers of a batch: noise of the latents (B, C, h, w)."""

    eps: Tensor


class Reconstructing:
    """The loss of a `Trainee`, its critic listened to from its step on."""

    def __init__(self, plan: AutoencoderPlan) -> None:
        self.latent_shape, self.critic_from = plan.latent_shape, plan.recipe.critic_from

    def draw(self, g: np.random.Generator, n: int, shape: tuple[int, ...]) -> Drawn:
        """See `Loss.draw`."""
        return Drawn(torch.from_numpy(g.standard_normal((n, *self.latent_shape), dtype="float32")))

    def __call__(self, state: TrainState[Any], batch: Batch, draws: Drawn) -> Tensor:
        """The mean over these rows."""
        device = state.accelerator.device
        judged = self.critic_from is not None and state.step >= self.critic_from
        with training_attention(device):
            loss: Tensor = state.network(batch.x0.to(device), draws.eps.to(device), judged)
        return loss


class AutoencoderRun(Course[Trainee]):
    """The run of a plan."""

    def __init__(self, plan: AutoencoderPlan) -> None:
        self.plan, self.run, self.recipe = plan, plan.run, plan.recipe
        self.images, self.device = plan.images, plan.device
        self.judge = Reconstructions(plan)
        self.found: Reconstructed | None = None

    @property
    def remedy(self) -> str:
        return "begin anew with a new `out`"

    def stored(self) -> dict[str, Any]:
        return self.plan.stored()

    def fresh(self) -> Trainee:
        return self.plan.trainee()

    def batches(self) -> BatchAt:
        r = self.plan.recipe
        return Batches(self.plan.parts[0], r.batch_size, r.seed, flip=r.flip, labelled=False)

    def loss(self) -> Reconstructing:
        return Reconstructing(self.plan)

    def preview(self, state: TrainState[Trainee], precision: str) -> Image.Image:
        return self.judge.picture(averaged(state), state.step)

    def measured(self, state: TrainState[Trainee]) -> dict[str, float]:
        self.found = self.judge.measured(averaged(state), state.step)
        return {name: float(f"{value:.6g}") for name, value in self.found.numbers.items()}

    def export(self, state: TrainState[Trainee]) -> None:
        plan = self.plan
        found = self.found if self.found is not None and self.found.step == state.step else None
        found = found or self.judge.measured(averaged(state), state.step)
        facts = {
            "family": "autoencoder", "shape": list(plan.images.shape), "measured": found.numbers,
            "provenance": {
                "command": plan.command, "data": plan.images.report.source, "data_sha256": plan.images.report.sha256,
                "images": len(plan.parts[0]), "held_out": len(plan.parts[1]), "steps": state.step, "weights": "ema",
                "recipe": plan.recipe.as_dict(),
                **({} if plan.init is None else {"init": {"sha256": plan.init.sha256, **plan.init.facts}}),
                **({"retreat": state.retreat._asdict()} if state.retreat is not None else {}),
            },
        }  # fmt: skip
        save_autoencoder(plan.run, found.autoencoder, facts)


def averaged(state: TrainState[Trainee]) -> Autoencoder:
    """A copy with the averaged weights, of latents as they are."""
    with state.ema.applied(state.unwrapped):
        return Autoencoder(copy.deepcopy(state.unwrapped.autoencoder).eval()).plain


def begin_autoencoder(plan: AutoencoderPlan, max_steps: int, *, resume: bool) -> TrainState[Trainee]:
    """The state a run begins or goes on with, see `opened`."""
    return opened(AutoencoderRun(plan), max_steps, resume=resume)


def autoencoder_run(
    plan: AutoencoderPlan, state: TrainState[Trainee], cadence: Cadence, stop: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda words: None,
) -> Iterator[Progress]:  # fmt: skip
    """Train to cadence.max_steps, see `followed`."""
    return followed(AutoencoderRun(plan), state, cadence, stop, tell)
