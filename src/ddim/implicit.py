"""DDIM's own step, undone: the x_s from which one DDIM step leads to x_t, found to a residual tolerance.

The published inversion asks the network at the end it knows; exactness needs its answer at the unknown end:
x_s / signal_s = x_t / signal_t + (noise_s/signal_s - noise_t/signal_t) eps(x_s, s). That need not contract
(on few steps near the clean image it does not), so Anderson's mixing is followed by Newton-Krylov on the rows
that stall, and every row keeps its residual: what is returned is the best point found, with its error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim import roots, update
from ddim.denoiser import Denoiser
from ddim.predict import Prediction
from ddim.schedule import Level


class StepReport(NamedTuple):
    """One solved step: residual (B,) = max |x_t - DDIM's step from x_s|, calls (B,) network rows spent, eps at x_s."""

    t: int
    s: int
    residual: Tensor
    calls: Tensor
    eps: Tensor


@dataclass(frozen=True)
class Implicit:
    """The inverse of `DDIM()`: from x at the cleaner t to the noisier s such that DDIM steps from there to x.

    Args:
        tolerance: largest |x_t - DDIM's step from x_s| of an image that counts as solved.
        calls: network calls of Anderson's mixing on each image and step.
        memory: differences it mixes.
        rounds, krylov: Newton steps for the images that are left, and GMRES directions of each; 0 rounds to leave
            them as they are.
        difference: size of the finite differences, in units of x.
        cond: conditions for the network; tensors with one row an image follow their image as rows drop out.
        known: eps at the first x_t where it is known already; saves a call.
        report: called after every step.
    """

    tolerance: float = 1e-5
    calls: int = 12
    memory: int = 8
    rounds: int = 2
    krylov: int = 12
    difference: float = 1e-3
    cond: Mapping[str, Any] = field(default_factory=dict)
    known: Tensor | None = None
    report: Callable[[StepReport], None] | None = None
    order: int = 1
    stochastic: bool = False

    @property
    def nfe(self) -> int:
        """The most calls a step can take: those of the mixing, then directions and line search of every round."""
        return 1 + self.calls + self.rounds * (self.krylov + 7)

    def init(self) -> Tensor | None:
        return self.known

    def step(
        self, denoise: Denoiser, x: Tensor, t: int, s: int, carry: Tensor | None, z: Any
    ) -> tuple[Tensor, Tensor | None]:
        at_t, at_s = denoise.schedule.at(t), denoise.schedule.at(s)
        gain = _gain(at_t, at_s)
        latest = torch.zeros_like(x)

        def residual(u: Tensor, rows: Tensor) -> Tensor:
            x_s = u.view(-1, *x.shape[1:])
            p = denoise(x_s, s, **select(self.cond, rows, len(x)))
            latest[rows] = p.eps
            return gain * (x[rows] - update.ddim(p, at_s, at_t)).flatten(1)

        guess = self._guess(denoise, x, at_t, at_s, t, carry)
        search = roots.begin(residual, guess.flatten(1))
        tolerance = self.tolerance * gain
        roots.anderson(residual, search, tolerance=tolerance, calls=self.calls, memory=self.memory)
        if self.rounds:
            roots.newton_krylov(
                residual,
                search,
                tolerance=tolerance,
                rounds=self.rounds,
                krylov=self.krylov,
                difference=self.difference,
            )
        x_s = search.u.view_as(x)
        if self.report is not None:
            self.report(StepReport(t, s, search.error / gain, search.calls + (1 if carry is None else 0), latest))
        return x_s, latest

    def _guess(
        self, denoise: Denoiser, x: Tensor, at_t: Level[float], at_s: Level[float], t: int, carry: Tensor | None
    ) -> Tensor:
        """The published step with the eps already known at x_t; only the first step has to ask for it."""
        if at_s.signal == 0.0:
            return x
        if carry is None:
            return update.ddim(denoise(x, t, **self.cond), at_t, at_s)
        return update.ddim(Prediction((x - at_t.noise * carry) / at_t.signal, carry), at_t, at_s)


def _gain(at_t: Level[float], at_s: Level[float]) -> float:
    """From a defect at the cleaner end to a move of x_s: that of the fixed point, or of pure noise at signal 0."""
    return at_s.signal / at_t.signal if at_s.signal > 0.0 else at_s.noise / at_t.noise


def select(cond: Mapping[str, Any], rows: Tensor, batch: int) -> dict[str, Any]:
    """Conditions of these rows: tensors with one row an image are indexed, the rest is passed on."""
    return {
        name: value[rows.to(value.device)]
        if isinstance(value, Tensor) and value.ndim and len(value) == batch
        else value
        for name, value in cond.items()
    }
