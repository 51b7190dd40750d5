"""What a training step minimises, and the random numbers it needs: DDPM's loss. The loop takes any other as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddim.data import Batch
from ddim.denoise import real_time, zero_based
from ddim.engine import training_attention
from ddim.jobs.train.recipe import LEVELS, Recipe
from ddim.jobs.train.state import TrainState
from ddim.process import Continuous, Objective, Schedule, TimeLabel, diffuse, draw_times


class Draws(NamedTuple):
    """The random numbers of a batch: t (B,), whole 1..T or real first..T, eps (B, *), which labels are dropped (B,)."""

    t: Tensor
    eps: Tensor
    dropped: Tensor


@dataclass(frozen=True)
class Denoising:
    """DDPM's loss, on any process: mean over the batch of weight(t) |network(shown x_t, label of t, label) - target|^2.

    x_t = signal x0 + noise eps, t uniform in 1..T (DDPM, arXiv 2006.11239, eq. 14 and algorithm 1) or by another
    of the laws of `draw_times`. The network is any module that `Model.from_network` takes; it is called
    without a label where the batch has none. A label is replaced by the null label at the rate `label_dropout`, where
    there is one.

    Args:
        law, levels: of the times, see `draw_times`. time_label: what the network is told of them.
        null_label: the label that means "any class"; default: the network's own `null_label`, if it has one.
    """

    objective: Objective
    process: Schedule | Continuous
    label_dropout: float = 0.0
    null_label: int | None = None
    law: str = "uniform"
    levels: int = LEVELS
    time_label: TimeLabel | None = None

    @classmethod
    def of(cls, recipe: Recipe, null_label: int | None = None) -> Denoising:
        """The loss of a recipe."""
        return cls(
            recipe.objective(), recipe.noise_process(), recipe.label_dropout, null_label, recipe.law,
            time_label=recipe.time_label,
        )  # fmt: skip

    def draw(self, g: np.random.Generator, n: int, shape: tuple[int, ...]) -> Draws:
        """See `Loss.draw`."""
        t = draw_times(self.process, self.law, self.levels, g, n)
        dropped = g.random(n) < self.label_dropout
        eps = g.standard_normal((n, *shape), dtype="float32")
        return Draws(t, torch.from_numpy(eps), torch.from_numpy(dropped))

    def __call__(self, state: TrainState[Any], batch: Batch, draws: Draws) -> Tensor:
        """The mean over these rows."""
        device = state.accelerator.device
        x0, eps, t = batch.x0.to(device), draws.eps.to(device), draws.t
        null = getattr(state.unwrapped, "null_label", None) if self.null_label is None else self.null_label
        label = hidden(batch.label, draws.dropped, null)
        asked = () if label is None else (label.to(device),)
        shown = self.objective.parameterisation.feed(diffuse(x0, eps, t, self.process), self.process.at_batch(t, x0))
        with training_attention(device):
            said = state.network(shown, self._told(t).to(device), *asked)
        out = said if isinstance(said, Tensor) else said.sample
        return self.objective.losses(out, x0, eps, t, self.process).mean()

    def _told(self, t: Tensor) -> Tensor:
        if self.process.discrete:
            return zero_based(t)
        return real_time(t) if self.time_label is None else self.time_label(t, self.process)


def hidden(label: Tensor | None, dropped: Tensor, null: int | None) -> Tensor | None:
    """The classes int64 (B,) with the null label where `dropped` bool (B,) says so, if there are both."""
    if label is None or null is None:
        return label
    return torch.where(dropped, torch.full_like(label, null), label)
