"""What students minimise: progressive distillation, consistency tuning and consistency distillation.

All compare what the student says of x_t, as a pair, with a target pair; so they hold for every process and every
meaning of a network's output. The weights are of the x0 error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddim.data import Batch
from ddim.denoise import Conditions, Consistent, Denoiser, labels
from ddim.engine import training_attention
from ddim.jobs.train import TrainState, hidden
from ddim.nets import torch_randomness
from ddim.process import Prediction, Process, ddim_step, diffuse, generator
from ddim.refused import Refused
from ddim.solve import DDIM, Solver
from ddim.uses import progressive_target, walk_target

AsDenoiser = Callable[[Any], Denoiser]
"""A network in training -> the denoiser it is: `Checkpoint.denoiser` of the student to be."""
Weighting = Literal["v", "x0"]
EVEN = 0.25  # of the draws by need, beside them
PSEUDO_HUBER = 0.06  # c of the consistency loss, as locuslab/ect has it for 32x32 images


class StepDraws(NamedTuple):
    """The random numbers of a batch: which of the student's steps int64 (B,), eps (B, *), dropped labels bool (B,)."""

    step: Tensor
    eps: Tensor
    dropped: Tensor


@dataclass(frozen=True, eq=False)
class Progressive:
    """Progressive distillation (arXiv 2202.00512, algorithm 2): where the teacher's steps lead, in one.

    x_t = signal x0 + noise eps at the beginning t of one of the student's steps; the target is that of
    `uses.progressive_target` over the teacher's times in that step. The squared error of x0 is weighted by SNR + 1
    ("v") or max(SNR, 1) ("x0").

    Args:
        teacher: the denoiser with its guidance and its clip, which the student takes in.
        read: see `AsDenoiser`.
        tau: the teacher's times, falling, the last one 0.
        steps: the student's; they divide the teacher's.
        shares: how often each of the student's steps is drawn, (steps,) in proportion; none for all alike.
        solver: the teacher's; deterministic.
        label_dropout, null_label: how often a class is hidden, from teacher and student alike, and by what.

    Raises:
        Refused: steps that do not divide the teacher's.
    """

    teacher: Denoiser
    read: AsDenoiser
    tau: tuple[Any, ...]
    steps: int
    weighting: Weighting = "v"
    solver: Solver[Any] = DDIM()  # noqa: RUF009  it never changes
    label_dropout: float = 0.0
    null_label: int | None = None
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1 or (len(self.tau) - 1) % self.steps:
            raise Refused(f"{self.steps} steps of a student do not divide the {len(self.tau) - 1} of its teacher")

    def draw(self, g: np.random.Generator, n: int, shape: tuple[int, ...]) -> StepDraws:
        """See `Loss.draw`. The steps of a batch follow `shares` as nearly as they can, in random order."""
        edges = np.cumsum(self.shares or (1.0,) * self.steps)
        step = np.searchsorted(edges[:-1], (g.permutation(n) + g.random()) / n * edges[-1], side="right")
        dropped = g.random(n) < self.label_dropout
        eps = g.standard_normal((n, *shape), dtype="float32")
        return StepDraws(torch.from_numpy(step), torch.from_numpy(eps), torch.from_numpy(dropped))

    def __call__(self, state: TrainState[Any], batch: Batch, draws: StepDraws) -> Tensor:
        """The mean over these rows."""
        error, t = self._errors(self.read(state.network), batch, draws, state.accelerator.device)
        return (error * self._weight(t, batch.x0).to(error)).mean()

    @torch.no_grad()
    def by_need(self, network: Any, batch: Batch, seed: int, device: torch.device) -> Progressive:
        """The same loss, each step drawn in proportion to the RMS error of x0 that this beginner makes there.

        Most is learnt where most is missing: from pure noise a step says little more than the mean picture. A fifth of
        the draws are even, so that no step is forgotten.

        Args:
            batch: measured on, some rows a step.
        """
        draws = self.draw(generator(seed, "shares"), len(batch.x0), tuple(batch.x0.shape[1:]))
        error, _ = self._errors(self.read(network), batch, draws, device)
        squares = [float(error[(draws.step == i).to(device)].mean()) for i in range(self.steps)]
        rms = np.sqrt(np.maximum(squares, 1e-12))
        return replace(self, shares=tuple((rms / rms.sum() + EVEN / self.steps).tolist()))

    def _errors(self, student: Denoiser, batch: Batch, draws: StepDraws, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean squared x0 errors (B,), and their times (B,)."""
        process = self.teacher.process
        told = _told(batch, draws.dropped, self.null_label, device)
        each = (len(self.tau) - 1) // self.steps
        tau = torch.tensor(self.tau, dtype=torch.int64 if process.discrete else torch.float64)
        times = tau[draws.step[:, None] * each + torch.arange(each + 1)]
        x_t = diffuse(batch.x0.to(device), draws.eps.to(device), times[:, 0], process)
        with torch.no_grad():
            target = self._target(x_t, times, draws.step, each, told)
        with training_attention(device):
            said = student(x_t, times[:, 0], told)
        return (said.x0.float() - target.x0.float()).square().flatten(1).mean(1), times[:, 0]

    def _target(self, x_t: Tensor, times: Tensor, step: Tensor, each: int, told: Conditions) -> Prediction:
        if self.solver == DDIM():
            return progressive_target(self.teacher, x_t, *times.unbind(1), conditions=told)
        x0, eps = torch.empty_like(x_t), torch.empty_like(x_t)
        for own in sorted(set(step.tolist())):  # a solver walks all images of a call over the same times
            rows = torch.nonzero(step == own).flatten()
            way = self.tau[own * each : (own + 1) * each + 1]
            p = walk_target(self.teacher, self.solver, x_t[rows], way, told.rows(rows))
            x0[rows], eps[rows] = p.x0, p.eps
        return Prediction(x0, eps)

    def _weight(self, t: Tensor, like: Tensor) -> Tensor:
        at = self.teacher.process.at_batch(t, like.double())
        snr = (at.signal / at.noise).flatten().square()
        return (snr + 1.0 if self.weighting == "v" else snr.clamp(min=1.0)).to(like)


class RatioDraws(NamedTuple):
    """The random numbers of a batch: noise/signal of t float64 (B,), eps (B, *), dropped labels bool (B,)."""

    ratio: Tensor
    eps: Tensor
    dropped: Tensor


@dataclass(frozen=True, eq=False)
class Consistency:
    """Consistency training: f says of x_t what it says of a cleaner x_r on the same path.

    noise/signal of t is exp(N(mean, std)), that of r by the mapping of "easy consistency tuning" (locuslab/ect):
    r = t (1 - (1 + k sigmoid(-t)) / q^(stage + 1)), in noise/signal, so for any process. x_r has the same x0 and eps as
    x_t, or, with a teacher, is where its DDIM step from x_t leads (consistency distillation, arXiv 2303.01469,
    algorithm 2). The same units are dropped in both calls. Loss: sqrt(|f(x_t) - f(x_r)|^2 + c^2) - c, gradients through
    the first alone, weighted by (t^2 + sd^2)/(t sd)^2.

    Args:
        read: see `AsDenoiser`; its denoiser is made a `Consistent` one.
        process: the student's.
        updates: of the whole run, in which `stages` follow one another.
        teacher: of distillation; None for tuning.
        q, stages: how close r comes to t: 1 - 1/q at first, 1 - 1/q^stages at the end.
        mean, std, k, data_std: see above.
        label_dropout, null_label: how often a class is hidden, and by what.
    """

    read: AsDenoiser
    process: Process
    updates: int
    teacher: Denoiser | None = None
    q: float = 4.0
    stages: int = 4
    mean: float = -1.1
    std: float = 2.0
    k: float = 8.0
    data_std: float = 0.5
    label_dropout: float = 0.0
    null_label: int | None = None

    def draw(self, g: np.random.Generator, n: int, shape: tuple[int, ...]) -> RatioDraws:
        """See `Loss.draw`."""
        ratio = np.exp(g.normal(self.mean, self.std, n))
        dropped = g.random(n) < self.label_dropout
        eps = g.standard_normal((n, *shape), dtype="float32")
        return RatioDraws(torch.from_numpy(ratio), torch.from_numpy(eps), torch.from_numpy(dropped))

    def __call__(self, state: TrainState[Any], batch: Batch, draws: RatioDraws) -> Tensor:
        """The mean over these rows."""
        device = state.accelerator.device
        told = _told(batch, draws.dropped, self.null_label, device)
        x0, eps = batch.x0.to(device), draws.eps.to(device)
        t, r = self.pairs(draws.ratio, state.step)
        x_t = diffuse(x0, eps, t, self.process)
        with torch.no_grad():
            x_r = diffuse(x0, eps, r, self.process) if self.teacher is None else self._led(x_t, t, r, told)
        f = Consistent(self.read(state.network))
        with training_attention(device):
            with torch_randomness(state.recipe.seed, "mask", state.step):
                said = f(x_t, t, told).x0.float()
            with torch.no_grad(), torch_randomness(state.recipe.seed, "mask", state.step):
                target = f(x_r, r, told).x0.float()
        distance = (said - target).square().flatten(1).sum(1)
        c = PSEUDO_HUBER
        return (self._weight(t, x_t) * ((distance + c * c).sqrt() - c)).mean()

    def pairs(self, ratio: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Times t and r, r the cleaner, of these noise/signal at this step; (B,) each, none below `process.first`."""
        closeness = self.q ** (min(self.stages - 1, step * self.stages // max(1, self.updates)) + 1)
        at = self.process.at(self.process.T)
        most = at.noise / at.signal if at.signal > 0.0 else math.inf
        found = []
        for rho in ratio.clamp(max=most).tolist():
            near = rho * (1 - (1 + self.k / (1 + math.exp(rho) if rho < 700 else math.inf)) / closeness)
            t = self.process.time_of(rho)
            r = max(self.process.time_of(max(near, 0.0)), self.process.first)
            if self.process.discrete:  # whole times, the two apart
                t = max(round(t), self.process.first + 1)
                r = min(round(r), t - 1)
            found.append((max(t, r), r))
        times = torch.tensor(found, dtype=torch.int64 if self.process.discrete else torch.float64)
        return times[:, 0], times[:, 1]

    def _led(self, x_t: Tensor, t: Tensor, r: Tensor, told: Conditions) -> Tensor:
        """Where the teacher's step leads."""
        assert self.teacher is not None  # asked of distillation alone
        at_t, at_r = (self.process.at_batch(time, x_t) for time in (t, r))
        return ddim_step(self.teacher(x_t, t, told), at_t, at_r)  # type: ignore[arg-type]  # (B, 1, ..) as well

    def _weight(self, t: Tensor, like: Tensor) -> Tensor:
        at = self.process.at_batch(t, like.double())
        rho2, sd2 = (at.noise / at.signal).flatten().square(), self.data_std**2
        return (1.0 / sd2 + 1.0 / rho2).to(like)


def _told(batch: Batch, dropped: Tensor, null: int | None, device: torch.device) -> Conditions:
    return labels(hidden(batch.label, dropped, null)).to(device)
