"""The one loop: a solver walks neighbouring times of tau. Sampling, encoding and editing are uses of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from ddim.denoise import NONE, Conditions, Denoiser, NetworkDenoiser, Wrapper, bound, labels
from ddim.process import STEP, Prediction, Time, noise
from ddim.refused import Refused
from ddim.solve.base import Solver, Step
from ddim.solve.ddim import DDIM

C = TypeVar("C")


@dataclass(frozen=True)
class _Noted(Wrapper):
    """The same denoiser; the time of every call is noted."""

    times: list[Time | Tensor]

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        self.times.append(t)
        return self.denoise(x_t, t, conditions)


def trajectory(
    denoise: Denoiser,
    solver: Solver[C],
    tau: Sequence[Any],
    x: Tensor,
    noise: Callable[..., Tensor] | None = None,
    carry: C | None = None,
    *,
    conditions: Conditions = NONE,
) -> Iterator[Step[C]]:
    """Walk tau pair by pair from x at tau[0], yielding every step: the state it led to, and what it cost.

    A solver counts what it asks of the denoiser; a step's calls here are the network's (`Denoiser.calls_at`).

    Args:
        denoise: x_t (B, *), t -> Prediction.
        solver: takes each step; unchanged by it.
        tau: strictly falling times to sample, strictly rising ones to encode (deterministic solvers only).
        x: x at tau[0], (B, *).
        noise: t -> fresh N(0, 1) noise (B, *) for the step that starts at t; needed by stochastic solvers. Solvers that
            take several ask for (t, k), k = 1, 2, .., as well.
        carry: of an earlier step, to go on from there; default the solver's own beginning.
        conditions: handed to the network at every call.

    Gradients pass, unless the caller says torch.no_grad.

    Raises:
        Refused: x not of floating-point numbers; tau not monotone or outside 0..T; a stochastic solver without noise or
            walking upwards; a solver that needs a variance, and a denoiser that says none.
    """
    refuse_whole_numbers(x)
    denoise = bound(denoise, conditions).pinned()
    times = denoise.process.checked(tau)
    pairs = list(itertools.pairwise(times))
    rising = bool(pairs) and pairs[0][1] > pairs[0][0]
    if not pairs or any((s > t) != rising or s == t for t, s in pairs):
        raise Refused(f"tau must be strictly monotone with at least two times, got {list(times)}")
    if solver.stochastic and rising:
        raise Refused("a stochastic solver cannot walk towards more noise; encode with eta = 0")
    if solver.stochastic and noise is None:
        raise Refused("this solver injects noise (eta or sigma above 0): give seeds, or noise")
    solver.suits(denoise)
    held = solver.init() if carry is None else carry
    for t, s in pairs:
        z = _drawn(noise, t, solver.draws) if solver.stochastic and noise is not None else None
        noted = _Noted(denoise, [])
        step = solver.step(noted, x, t, s, held, z)
        x, held = step.x, step.carry
        yield step._replace(calls=sum(map(denoise.calls_at, noted.times)))


def asked(denoise: Denoiser, solver: Solver[Any], tau: Sequence[Any]) -> tuple[Any, ...]:
    """The times at which a walk asks a denoiser, one a call: found by a walk with a stand-in, of two numbers.

    Raises:
        Refused: what this solver cannot do on these times, or with this denoiser.
    """
    more = denoise.variance or False
    silent = NetworkDenoiser(lambda x, t: torch.zeros(1, 4 if more else 2), denoise.process, "v", learned_variance=more)
    stand_in = _Noted(silent, [])
    sample(stand_in, noise([0], (2,)), tau, solver=solver.rows(slice(0, 1)), seeds=[0])
    return tuple(stand_in.times)


def refuse_whole_numbers(x: Tensor) -> None:
    """States, and pictures in [-1, 1], are floating-point numbers; levels 0..255 would be taken for them in silence."""
    if not x.is_floating_point():
        raise Refused(f"states are floating-point tensors, got {x.dtype}; levels become them by ddim.pixels.from_uint8")


def end_of(walk: Iterator[Step[Any]]) -> Tensor:
    """x at the end of a trajectory."""
    *_, last = walk
    return last.x


def step_noise(seeds: Sequence[int], like: Tensor) -> Callable[..., Tensor]:
    """t -> the noise of the step that starts at t: row i depends on (seeds[i], t) only; shaped as `like` (B, *).

    (t, k) -> the k-th more of that step.
    """
    if len(seeds) != len(like):
        raise Refused(f"{len(like)} images need {len(like)} seeds, got {len(seeds)}")

    def draw(t: Any, k: int = 0) -> Tensor:
        purpose = STEP if k == 0 else f"{STEP}/{k}"
        return noise(seeds, like.shape[1:], purpose=purpose, step=t, dtype=like.dtype, device=like.device)

    return draw


def _drawn(draw: Callable[..., Tensor], t: Any, count: int) -> Tensor:
    return draw(t) if count == 1 else torch.stack([draw(t), *(draw(t, k) for k in range(1, count))])


def sample(
    denoise: Denoiser,
    x_T: Tensor,
    tau: Sequence[Any],
    *,
    solver: Solver[Any] | None = None,
    seeds: Sequence[int] | None = None,
    label: Tensor | None = None,
    conditions: Conditions = NONE,
    gradients: bool = False,
) -> Tensor:
    """x at tau[-1] from x_T at tau[0]: the last state of the trajectory.

    Args:
        denoise: the denoiser; it carries the process.
        x_T: the starting latents, (B, *); see `ddim.noise`. A walk that begins with pure noise at tau[0] begins with
            `process.start(tau[0])` times N(0, 1): 1 on a schedule, the noise at tau[0] elsewhere.
        tau: times to visit, see `ddim.tau`.
        solver: default `DDIM()`, deterministic.
        seeds: one an image; needed only by stochastic solvers. Image i depends on seeds[i] and x_T[i] alone.
        label: the condition "label", one row an image; or all `conditions` handed to the network at every call.
        gradients: let them pass through the whole walk; its memory grows with the number of calls.

    Raises:
        Refused: as `trajectory`; or len(seeds) != len(x_T).
    """
    solver = DDIM() if solver is None else solver
    draw = None if seeds is None else step_noise(seeds, x_T)
    with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
        return end_of(trajectory(denoise, solver, tau, x_T, draw, conditions=conditions | labels(label)))
