"""The roads between images and latents: the walks that encoding takes, up and down, each of their steps told."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ddim.denoise import Denoiser
from ddim.refused import Refused
from ddim.solve import DDIM, Coupled, Implicit, Older, Solved, Step, end_of, trajectory
from ddim.uses.certificate import Road
from ddim.uses.finer import cleaned

Method = Literal["naive", "implicit", "bdia", "exact"]
METHODS: tuple[Method, ...] = ("naive", "implicit", "bdia", "exact")
Tell = Callable[[int, int], None]
"""Hears how much is done, and of how much."""


class Steps:
    """How many steps are done, of how many."""

    def __init__(self, progress: Tell | None) -> None:
        self.progress, self.done, self.planned = progress, 0, 0

    def plan(self, more: int) -> None:
        self.planned += more

    def one(self) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.planned), self.planned)

    def end(self) -> None:
        """Images that are solved no further need fewer steps than planned."""
        if self.progress is not None and self.done < self.planned:
            self.progress(self.planned, self.planned)


class Job(NamedTuple):
    """A denoiser under its conditions, and the times: what every walk needs."""

    denoise: Denoiser
    tau: tuple[Any, ...]
    tell: Callable[[], None] = lambda: None

    def walk(self, *how: Any, **more: Any) -> Iterator[Step[Any]]:
        """`trajectory` of this denoiser, each step told."""
        for step in trajectory(self.denoise, *how, **more):
            self.tell()
            yield step

    def checked(self) -> tuple[Any, ...]:
        if len(self.tau) < 2 or any(s >= t for t, s in zip(self.tau[:-1], self.tau[1:], strict=True)):
            raise Refused(f"tau must fall strictly and have at least two times, got {list(self.tau)}")
        return self.tau

    def rows(self, rows: Tensor) -> Job:
        return self._replace(denoise=self.denoise.rows(rows))

    def on(self, road: Road, rows: Tensor) -> Job:
        return self.rows(rows)._replace(tau=road.tau)

    def image(self, x_T: Tensor, road: Road, seeds: Sequence[int]) -> Tensor:
        """What DDIM makes of x_T at the end of a road, its noise taken off."""
        return cleaned(self.denoise.process, self.down(x_T), road, seeds)

    def coupled_image(self, states: Tensor, gamma: float, road: Road, seeds: Sequence[int]) -> Tensor:
        return cleaned(self.denoise.process, self.coupled_down(states, gamma), road, seeds)

    def down(self, x_T: Tensor) -> Tensor:
        return end_of(self.walk(DDIM(), self.tau, x_T))

    def naive(self, x: Tensor) -> Tensor:
        return end_of(self.walk(DDIM(), self.tau[::-1], x))

    def coupled(self, x: Tensor, gamma: float) -> Tensor:
        """x at tau[0] and tau[1]: (B, 2, *)."""
        if len(self.tau) < 3:
            raise Refused("the coupled scheme ('bdia') carries two states: it needs at least 2 steps, got 1")
        states = [step.x for step in self.walk(Coupled(gamma), self.tau[::-1], x)]
        return torch.stack([states[-1], states[-2]], 1)

    def coupled_down(self, states: Tensor, gamma: float) -> Tensor:
        first = Older(self.tau[0], states[:, 0])
        return end_of(self.walk(Coupled(gamma), self.tau[1:], states[:, 1], carry=first))


def walked(job: Job, method: Method, solver: Implicit, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x_T by the method's first road, its worst residual (NaN where nothing is solved) and its calls, an image each."""
    if method in ("implicit", "exact"):
        return _solve(job, solver, x, retire=method == "exact" and len(job.tau) > 2)
    unknown = torch.full((len(x),), torch.nan, dtype=torch.float64)
    calls = torch.full((len(x),), len(job.tau) - 1 if method == "naive" else 0)
    return job.naive(x) if method == "naive" else x.clone(), unknown, calls


def _solve(job: Job, solver: Implicit, x: Tensor, retire: bool) -> tuple[Tensor, Tensor, Tensor]:
    """x_T, the worst residual of every image (float64, CPU), and its calls (int64, CPU).

    With `retire`, an image leaves at the first step that could not be solved: the coupled scheme will take it, and
    what it would cost to go on is saved. Its x_T is then nothing.
    """
    batch, x = len(x), x.clone()
    residual, nfe = torch.zeros(batch, dtype=torch.float64), torch.zeros(batch, dtype=torch.int64)
    rows, held = torch.arange(batch), None
    for pair in itertools.pairwise(job.tau[::-1]):
        on = rows.to(x.device)
        (step,) = job.rows(rows).walk(solver, pair, x[on], carry=held)
        x[on], solved = step.x, step.carry
        assert solved is not None  # the carry of a step that was taken
        residual[rows] = torch.maximum(residual[rows], solved.residual.double().cpu())
        nfe[rows] += solved.calls.cpu()
        kept = residual[rows] <= solver.tolerance if retire else torch.ones(len(rows), dtype=torch.bool)
        rows, held = rows[kept], Solved(*(v[kept.to(v.device)] for v in solved))
        if not len(rows):
            break
    return x, residual, nfe


def work(x: Tensor) -> Tensor:
    """The states' own precision, float64; float32 on devices without it."""
    return x.double() if x.device.type != "mps" else x.float()
