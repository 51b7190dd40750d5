"""Training as a loop: `fit` takes a state, a way to get batches and a recipe, and yields after every step.

All randomness of a step (times, noise, dropped labels, flips, dropout) is a function of (seed, step), so a
state is weights, moments, averages and a counter: save it, load it, go on, and the same numbers follow.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim.data import Batch
from ddim.denoise import zero_based
from ddim.engine import training_attention
from ddim.jobs.train.recipe import Recipe
from ddim.jobs.train.state import TrainState
from ddim.nets import torch_randomness
from ddim.process import diffuse, generator
from ddim.refused import Refused

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


class Draws(NamedTuple):
    """The random numbers of a whole batch: t int64 (B,) in 1..T, eps (B, *), which labels are dropped (B,)."""

    t: Tensor
    eps: Tensor
    dropped: Tensor


def draws(recipe: Recipe, step: int, shape: tuple[int, ...], T: int) -> Draws:
    """The draws of one step; row i of the whole batch is the same however the batch is split."""
    g, n = generator(recipe.seed, "train", step), recipe.batch_size
    t = g.integers(1, T + 1, size=n)
    dropped = g.random(n) < recipe.label_dropout
    eps = g.standard_normal((n, *shape), dtype="float32")
    return Draws(torch.from_numpy(t), torch.from_numpy(eps), torch.from_numpy(dropped))


def fit(state: TrainState, batch_at: BatchAt, recipe: Recipe, *, max_steps: int) -> Iterator[Progress]:
    """Train from state.step to max_steps, yielding after every optimizer step; `state` is up to date at each yield.

    loss = mean over the batch of weight(t) |network(x_t, t - 1, label) - target|^2, x_t = signal x0 + noise eps,
    t uniform in 1..T (DDPM eq. 14, algorithm 1). With several processes each takes its rows of every batch.

    Args:
        state: see `trainstate.new_state`; changed in place.
        batch_at: (step, rows) -> those rows of the batch of that step.
        recipe: the one `state` was made with.
        max_steps: where to stop, counted from the beginning of the run.

    Raises:
        DivergedError: before a step that is not finite is taken, or after the smoothed loss stayed above 5 times
            its best for 100 steps. The best counts once 50 steps and 1000 images are smoothed.
    """
    state.network.train()
    while state.step < max_steps:
        begun = time.perf_counter()
        lr = recipe.lr_at(state.step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        loss = _accumulate(state, batch_at, recipe)
        norm = _apply(state, recipe, loss)
        state.ema.update(state.unwrapped)
        state.step += 1
        _watch(state, loss, recipe.batch_size)
        speed = recipe.batch_size / max(time.perf_counter() - begun, 1e-9)
        yield Progress(state.step, loss, state.smooth_loss, lr, norm, speed)


def _accumulate(state: TrainState, batch_at: BatchAt, recipe: Recipe) -> float:
    """Gradients of the mean loss over this process's rows, part by part; the mean loss over all processes."""
    accelerator, parts = state.accelerator, recipe.accumulation
    each = recipe.batch_size // (parts * accelerator.num_processes)
    first = accelerator.process_index * each * parts
    total = torch.zeros((), device=accelerator.device)
    d: Draws | None = None
    for part in range(parts):
        rows = slice(first + part * each, first + (part + 1) * each)
        batch = batch_at(state.step, rows)
        d = draws(recipe, state.step, tuple(batch.x0.shape[1:]), state.schedule.T) if d is None else d
        last = part == parts - 1
        with torch_randomness(recipe.seed, f"dropout/{rows.start}", state.step), _synchronised(state, last):
            loss = _loss(state, batch, Draws(*(v[rows] for v in d)), recipe) / parts
            accelerator.backward(loss)
        total += loss.detach()
    return float(accelerator.reduce(total, "mean"))


def _synchronised(state: TrainState, last: bool) -> contextlib.AbstractContextManager[Any]:
    """Processes exchange gradients once a step, with the last part."""
    return contextlib.nullcontext() if last else state.accelerator.no_sync(state.network)


def _loss(state: TrainState, batch: Batch, d: Draws, recipe: Recipe) -> Tensor:
    device = state.accelerator.device
    x0, eps, t = batch.x0.to(device), d.eps.to(device), d.t
    label = batch.label
    if label is not None and state.unwrapped.null_label is not None:
        label = torch.where(d.dropped, torch.full_like(label, state.unwrapped.null_label), label).to(device)
    x_t = diffuse(x0, eps, t, state.schedule)
    with training_attention(device):
        out = state.network(x_t, zero_based(t).to(device), label)
    return recipe.objective().losses(out, x0, eps, t, state.schedule).mean()


def _apply(state: TrainState, recipe: Recipe, loss: float) -> float:
    """Clip and take the step; refuses what is not finite before it can reach the weights."""
    if not math.isfinite(loss):
        raise DivergedError(f"the loss is {loss} at step {state.step + 1}")
    norm = float(state.accelerator.clip_grad_norm_(state.network.parameters(), recipe.clip))
    if not math.isfinite(norm) and state.accelerator.scaler is None:  # a scaler skips such a step and lowers its scale
        raise DivergedError(f"the gradient is {norm} at step {state.step + 1}")
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return norm


def _watch(state: TrainState, loss: float, batch_size: int) -> None:
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
