"""Training as a loop: `fit` takes a state, a way to get batches and a loss, and yields after every step.

All randomness of a step (times, noise, dropped labels, flips, dropout) is a function of (seed, step), so a
state is weights, moments, averages and a counter: save it, load it, go on, and the same numbers follow.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from ddim.data import Batch
from ddim.jobs.train.state import TrainState
from ddim.nets import torch_randomness
from ddim.process import generator
from ddim.refused import Refused

D = TypeVar("D", bound=tuple[Tensor, ...])
BatchAt = Callable[[int, slice], Batch]
DIVERGED_FACTOR, DIVERGED_STEPS, SMOOTHING = 5.0, 100, 0.98
SETTLED_STEPS, SETTLED_IMAGES = 50, 1000  # of less than these the smoothed loss may be very low by luck


class Progress(NamedTuple):
    """What one optimizer step did; `step` counts the steps done, 1 for the first."""

    step: int
    loss: float
    smooth_loss: float
    lr: float
    grad_norm: float
    images_per_second: float


class DivergedError(Refused):
    """The loss is not finite, or stays far above its best."""


class Loss(Protocol[D]):
    """What a step minimises, and the random numbers it needs; DDPM's is `loss.Denoising`."""

    def draw(self, g: np.random.Generator, n: int, shape: tuple[int, ...]) -> D:
        """The random numbers of one step: a NamedTuple of tensors, one row for each of the n images of the whole batch.

        So row i is the same however the batch is split.

        Args:
            g: of the run's seed and the step.
            shape: of one image.
        """

    def __call__(self, state: TrainState[Any], batch: Batch, draws: D) -> Tensor:
        """The mean over the rows in `batch`, with their rows of the draws; a scalar that gradients pass through."""


def fit(state: TrainState[Any], batch_at: BatchAt, loss: Loss[D], *, max_steps: int) -> Iterator[Progress]:
    """Train from state.step to max_steps, yielding after every optimizer step; `state` is up to date at each yield.

    With several processes each takes its rows of every batch. 25 steps, saved, loaded, and 35 more are 60 steps, bit
    for bit, if the loss is a function of the state, the batch and the draws.

    Args:
        state: see `state.new_state`; changed in place. Its recipe says the batch, the rate and the clipping.
        batch_at: (step, rows) -> those rows of the batch of that step.
        loss: what is minimised.
        max_steps: where to stop, counted from the beginning of the run.

    Raises:
        DivergedError: before a step that is not finite is taken, or after the smoothed loss stayed above 5 times
            its best for 100 steps. The best counts once 50 steps and 1000 images are smoothed.
    """
    recipe = state.recipe
    state.network.train()
    while state.step < max_steps:
        begun = time.perf_counter()
        lr = state.lr
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        mean = _accumulate(state, batch_at, loss)
        norm = _apply(state, mean)
        state.ema.update(state.unwrapped)
        if state.powers is not None:
            state.powers.update(state.unwrapped)
        state.step += 1
        _watch(state, mean, recipe.batch_size)
        speed = recipe.batch_size / max(time.perf_counter() - begun, 1e-9)
        yield Progress(state.step, mean, state.smooth_loss, lr, norm, speed)


def _accumulate(state: TrainState[Any], batch_at: BatchAt, loss: Loss[D]) -> float:
    """Gradients of the mean loss over this process's rows, part by part; the mean loss over all processes."""
    accelerator, recipe = state.accelerator, state.recipe
    parts = recipe.accumulation
    each = recipe.batch_size // (parts * accelerator.num_processes)
    first = accelerator.process_index * each * parts
    total = torch.zeros((), device=accelerator.device)
    draws: D | None = None
    for part in range(parts):
        rows = slice(first + part * each, first + (part + 1) * each)
        batch = batch_at(state.step, rows)
        if draws is None:
            draws = loss.draw(generator(recipe.seed, "train", state.step), recipe.batch_size, tuple(batch.x0.shape[1:]))
        last = part == parts - 1
        with torch_randomness(recipe.seed, f"dropout/{rows.start}", state.step), _synchronised(state, last):
            mean = loss(state, batch, _rows(draws, rows)) / parts
            accelerator.backward(mean)
        total += mean.detach()
    return float(accelerator.reduce(total, "mean"))


def _rows(draws: D, rows: slice) -> D:
    cut: D = type(draws)(*(value[rows] for value in draws))
    return cut


def _synchronised(state: TrainState[Any], last: bool) -> contextlib.AbstractContextManager[Any]:
    """Processes exchange gradients once a step, with the last part."""
    return contextlib.nullcontext() if last else state.accelerator.no_sync(state.network)


def _apply(state: TrainState[Any], loss: float) -> float:
    """Clip and take the step; refuses what is not finite before it can reach the weights."""
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss} at step {state.step + 1}")
    norm = float(state.accelerator.clip_grad_norm_(state.network.parameters(), state.recipe.clip))
    if not math.isfinite(norm) and state.accelerator.scaler is None:  # a scaler skips such a step and lowers its scale
        raise DivergedError(f"the gradient is {norm} at step {state.step + 1}")
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return norm


def _watch(state: TrainState[Any], loss: float, batch_size: int) -> None:
    """Keep the smoothed loss and its best; raise when it has been far above the best for long."""
    rate = max(1 - SMOOTHING, 1 / state.step)  # a plain mean at first
    state.smooth_loss = loss if state.step == 1 else (1 - rate) * state.smooth_loss + rate * loss
    if state.step >= SETTLED_STEPS and state.step * batch_size >= SETTLED_IMAGES:
        state.best_loss = min(state.best_loss, state.smooth_loss)
    high = state.smooth_loss > DIVERGED_FACTOR * state.best_loss
    state.high_steps = state.high_steps + 1 if high else 0
    if state.high_steps >= DIVERGED_STEPS:
        raise DivergedError(
            f"the loss has stayed above {DIVERGED_FACTOR:g} times its best for {DIVERGED_STEPS} steps "
            f"({state.smooth_loss:.4g} against {state.best_loss:.4g}) at step {state.step}"
        )
