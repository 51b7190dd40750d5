"""Search over times: the closed form for Gaussian data; dynamic programming over a recorded long trajectory; moves.

Along a recorded trajectory the network's answers at the exact states are known, so any solver's step between
any two recorded times, with any past, can be tried without calling the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddim.denoise import NONE, Conditions, Denoiser
from ddim.process import Prediction, Process, Time, tau
from ddim.refused import Refused
from ddim.solve import DPMSolverPP, Solver, trajectory

GROUPS = 64  # eigenvalues are taken together in this many groups
REAL_CANDIDATES = 400  # times of each spacing tried on a continuous process
BEAM = 6  # predecessors kept for each time in each layer of the dynamic programme


@dataclass(frozen=True, eq=False)
class Walk(Denoiser):
    """States and predictions of a long trajectory at chosen times (falling, T first, 0 last, without a prediction)."""

    process: Process
    times: tuple[Any, ...]
    states: dict[Any, Tensor]
    predictions: dict[Any, Prediction]

    invertible = False

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        """As a denoiser: the recorded answer at t, whatever x_t is."""
        return self.predictions[int(t) if self.process.discrete else float(t)]

    def first(self, n: int) -> Walk:
        """The first n latents only."""
        return Walk(
            self.process, self.times, {t: x[:n] for t, x in self.states.items()},
            {t: Prediction(p.x0[:n], p.eps[:n]) for t, p in self.predictions.items()},
        )  # fmt: skip

    @staticmethod
    def joined(parts: Sequence[Walk]) -> Walk:
        """Batches of latents as one."""
        one = parts[0]
        states = {t: torch.cat([p.states[t] for p in parts]) for t in one.states}
        predictions = {
            t: Prediction(
                torch.cat([p.predictions[t].x0 for p in parts]), torch.cat([p.predictions[t].eps for p in parts])
            )
            for t in one.predictions
        }
        return Walk(one.process, one.times, states, predictions)


@torch.no_grad()
def walk_long(denoise: Denoiser, x_T: Tensor, times: Sequence[Any], long: int) -> Walk:
    """Record a trajectory of about `long` steps of third order, or more, that passes through all of `times`.

    Half of the steps are even in t and half in log SNR: either alone is coarse at one end.
    """
    process = denoise.process
    T, half = process.T, max(1, min(long // 2, process.T) if process.discrete else long // 2)
    even = [tau(process, half, name) for name in ("uniform", "logsnr")]
    fine = tuple(sorted({*even[0], *even[1], *times}, reverse=True))
    states, predictions, at, wanted = {T: x_T}, {}, T, set(times)
    for s, step in zip(fine[1:], trajectory(denoise, DPMSolverPP(3), fine, x_T), strict=True):
        if at in wanted:
            predictions[at] = step.prediction
        at = s
        if at in wanted:
            states[at] = step.x
    return Walk(process, tuple(sorted(wanted, reverse=True)), states, predictions)


@dataclass(frozen=True)
class _Partial:
    """The best way found to a time so far: its cost, what the solver carries, and the times behind it."""

    cost: float
    carry: Any
    path: tuple[Any, ...]


@torch.no_grad()
def best_path(walk: Walk, solver: Solver[Any], steps: int) -> tuple[Any, ...]:
    """The times, S + 1 of the walk's, with the smallest sum of errors of steps started from the exact states.

    The error of a step is its RMS, carried on to x_0 as Gaussian data of the same variance would carry it. A step's
    error depends on the steps before it through the carry, so each time keeps its `BEAM` best pasts, not one.

    Raises:
        Refused: fewer than steps + 1 times.
    """
    times = walk.times
    if len(times) < steps + 1:
        raise Refused(f"{steps} steps need {steps + 1} times to choose from, got {len(times)}")
    x0 = walk.states[0]
    variance = max(float((x0 - x0.mean(0)).square().mean()), 1e-6)
    alive: dict[int, list[_Partial]] = {0: [_Partial(0.0, solver.init(), (times[0],))]}
    for layer in range(1, steps + 1):
        reached: dict[int, list[_Partial]] = {}
        last = len(times) - 1
        for i, pasts in alive.items():
            ends = [last] if layer == steps else range(i + 1, last - (steps - layer) + 1)
            for past in pasts:
                for j in ends:
                    found = _stepped(walk, solver, past, times[i], times[j], variance)
                    reached.setdefault(j, []).append(found)
        alive = {j: sorted(found, key=lambda p: p.cost)[:BEAM] for j, found in reached.items()}
    return alive[len(times) - 1][0].path


def _stepped(walk: Walk, solver: Solver[Any], past: _Partial, t: Any, s: Any, variance: float) -> _Partial:
    step = solver.step(walk, walk.states[t], t, s, past.carry, None)
    at = walk.process.at(s)
    reach = (variance / (at.signal**2 * variance + at.noise**2)) ** 0.5
    error = float((step.x - walk.states[s]).square().mean().sqrt())
    return _Partial(past.cost + reach * error, step.carry, (*past.path, s))


def moved(times: Sequence[Any], stride: float) -> Iterator[tuple[Any, ...]]:
    """The same times with one inner time moved towards its upper or lower neighbour by `stride` of the gap.

    The first time (T) and the last (0) stay. Whole times stay whole; real ones move by `stride` of the log of the ratio
    where both are above 0.
    """
    whole = all(isinstance(t, int) for t in times)
    for i in range(1, len(times) - 1):
        for neighbour in (times[i - 1], times[i + 1]):
            if whole:
                to = times[i] + round((neighbour - times[i]) * stride)
            else:
                ends = (neighbour, times[i])
                to = times[i] * (ends[0] / ends[1]) ** stride if ends[0] else times[i] * (1 - stride)
            if to not in (times[i], neighbour):
                yield (*times[:i], to, *times[i + 1 :])


def spectrum(pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Eigenvalues of the covariance of images uint8 (N, H, W, C) on the [-1, 1] scale; float64, rising.

    Raises:
        Refused: fewer than two images.
    """
    if len(pixels) < 2:
        raise Refused(f"a covariance needs at least 2 images, got {len(pixels)}")
    x = torch.from_numpy(pixels.reshape(len(pixels), -1).astype(np.float64)) / 127.5 - 1.0
    x = x - x.mean(0)
    small = x @ x.T if len(x) < x.shape[1] else x.T @ x  # the same eigenvalues but for zeros
    values: Tensor = torch.linalg.eigvalsh(small / (len(pixels) - 1)).clamp(min=0.0)
    return values


def closed_form(process: Process, eigenvalues: Tensor, steps: int) -> tuple[Any, ...]:
    """Times that keep DDIM's variance best for Gaussian data: min sum_k l_k sum_i -ln cos(phi_k(t_i) - phi_k(t_i')).

    phi_k(t) = arctan(noise / (signal sqrt l_k)), t_i' next to t_i. With one eigenvalue the angles come out even, for
    then K_S = K_inf prod cos (docs/theory.md, 3). Found by dynamic programming over all times.

    Raises:
        Refused: steps outside 1..T; no eigenvalue above 0; more steps than times tried.
    """
    tau(process, steps)
    kept = eigenvalues[eigenvalues > 1e-9 * float(eigenvalues.max())].double()
    if not len(kept):
        raise Refused("the closed form needs data that varies: all eigenvalues are 0")
    parts = list(kept.sort().values.tensor_split(min(GROUPS, len(kept))))
    candidates = _candidates(process)
    levels = [process.at(t) for t in candidates]
    cost = np.zeros((len(candidates), len(candidates)))
    for part in parts:
        root = float(part.mean()) ** 0.5
        phi = np.arctan2([v.noise for v in levels], [v.signal * root for v in levels])
        weight = float(part.sum() / kept.sum())
        # from candidate i down to j < i; a right angle loses everything
        cost += -weight * np.log(np.maximum(np.cos(phi[:, None] - phi[None, :]), 1e-300))
    cost[np.triu_indices(len(candidates))] = np.inf
    best, choices = np.full(len(candidates), np.inf), []
    best[-1] = 0.0
    for _ in range(steps):
        total = best[:, None] + cost
        choices.append(total.argmin(0))
        best = total.min(0)
    path = [0]
    for choice in reversed(choices):
        path.append(int(choice[path[-1]]))
    return tau(process, steps, [candidates[i] for i in reversed(path)])


def _candidates(process: Process) -> list[Any]:
    """All times of a schedule, or a thousand of them; of a continuous process as many, even in its spacings."""
    if process.discrete:
        most = min(process.T, 1000)
        return sorted({round(i * process.T / most) for i in range(most + 1)})
    return sorted({t for name in ("uniform", "logsnr") for t in tau(process, REAL_CANDIDATES, name)})
