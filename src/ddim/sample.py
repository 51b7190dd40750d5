"""The one loop: a solver walks neighbouring times of tau. Sampling, encoding and editing are uses of it."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ddim.denoiser import Bound, Denoiser
from ddim.noise import STEP, noise
from ddim.predict import Prediction
from ddim.solver import DDIM, Solver

C = TypeVar("C")


class State(NamedTuple):
    """Where a trajectory is: the time s, x at s (B, *), and the first prediction of the step that led there."""

    s: int
    x: Tensor
    prediction: Prediction


class _FirstCall:
    """A denoiser that remembers the first prediction since `forget`; solvers stay free of reporting."""

    def __init__(self, denoise: Denoiser) -> None:
        self.denoise = denoise
        self.first: Prediction | None = None

    @property
    def schedule(self) -> Any:
        return self.denoise.schedule

    def __call__(self, x_t: Tensor, t: int | Tensor, **cond: Any) -> Prediction:
        p = self.denoise(x_t, t, **cond)
        self.first = p if self.first is None else self.first
        return p


def trajectory(
    denoise: Denoiser,
    solver: Solver[C],
    tau: Sequence[int],
    x: Tensor,
    noise: Callable[[int], Tensor] | None = None,
) -> Iterator[State]:
    """Walk tau pair by pair from x at tau[0], yielding the state after every step.

    Args:
        denoise: x_t (B, *), t -> Prediction.
        solver: takes each step; unchanged by it.
        tau: strictly falling times to sample, strictly rising ones to encode (deterministic solvers only).
        x: x at tau[0], (B, *).
        noise: t -> fresh N(0, 1) noise (B, *) for the step that starts at t; needed by stochastic solvers.

    Raises:
        ValueError: tau not monotone or outside 0..T; a stochastic solver without noise or walking upwards.
    """
    tau = [operator.index(t) for t in tau]  # of NumPy or torch too: the schedule looks whole numbers up
    pairs = list(itertools.pairwise(tau))
    rising = bool(pairs) and pairs[0][1] > pairs[0][0]
    if not pairs or any((s > t) != rising or s == t for t, s in pairs):
        raise ValueError(f"tau must be strictly monotone with at least two times, got {list(tau)}")
    if min(tau) < 0 or max(tau) > denoise.schedule.T:
        raise ValueError(f"tau runs from {min(tau)} to {max(tau)}, outside 0..{denoise.schedule.T}")
    if solver.stochastic and rising:
        raise ValueError("a stochastic solver cannot walk towards more noise; encode with eta = 0")
    if solver.stochastic and noise is None:
        raise ValueError("this solver injects noise (eta or sigma above 0): give seeds, or noise")
    recorded, carry = _FirstCall(denoise), solver.init()
    for t, s in pairs:
        recorded.first = None
        z = noise(t) if solver.stochastic and noise is not None else None
        x, carry = solver.step(recorded, x, t, s, carry, z)
        if recorded.first is None:
            raise RuntimeError(f"{type(solver).__name__} took a step without calling the network")
        yield State(s, x, recorded.first)


def step_noise(seeds: Sequence[int], like: Tensor) -> Callable[[int], Tensor]:
    """t -> the noise of the step that starts at t: row i depends on (seeds[i], t) only; shaped as `like` (B, *)."""
    if len(seeds) != len(like):
        raise ValueError(f"{len(like)} images need {len(like)} seeds, got {len(seeds)}")
    return lambda t: noise(seeds, like.shape[1:], purpose=STEP, step=t, dtype=like.dtype, device=like.device)


@torch.no_grad()
def sample(
    denoise: Denoiser,
    x_T: Tensor,
    tau: Sequence[int],
    *,
    solver: Solver[Any] | None = None,
    seeds: Sequence[int] | None = None,
    **cond: Any,
) -> Tensor:
    """x at tau[-1] from x_T at tau[0]: the last state of the trajectory.

    Args:
        denoise: the denoiser; it carries the schedule.
        x_T: the starting latents, (B, *); see `ddim.noise`.
        tau: times to visit, see `ddim.tau`.
        solver: default `DDIM()`, deterministic.
        seeds: one an image; needed only by stochastic solvers. Image i depends on seeds[i] and x_T[i] alone.
        cond: conditions handed to the network at every call, e.g. label=....

    Raises:
        ValueError: as `trajectory`; or len(seeds) != len(x_T).
    """
    solver = DDIM() if solver is None else solver
    draw = None if seeds is None else step_noise(seeds, x_T)
    x = x_T
    for state in trajectory(Bound(denoise, cond) if cond else denoise, solver, tau, x_T, draw):
        x = state.x
    return x
