"""The flow of a denoiser as one smooth equation on every process, and the trace of its Jacobian.

With phi = arctan(noise/signal) as the clock and u = x / sqrt(signal^2 + noise^2) as the state d(x/a)/d(b/a) = eps is

    du/dphi = cos(phi) eps - sin(phi) x0,    phi from 0, the clean image, to at most pi/2, no signal at all,

which stays finite at both ends. Below the cleanest time a network is asked at, the score of that time is held:
eps grows as noise/signal there. Between the whole times of a `Schedule` the slope is interpolated, linearly in phi,
between those at the two times, so that no network is shown a time it was not trained at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Level, as_rows


def angle(at: Level[float]) -> float:
    """arctan(noise/signal): 0 for the clean image, pi/2 for no signal."""
    return math.atan2(at.noise, at.signal)


@dataclass(frozen=True)
class Field:
    """du/dphi of a denoiser, for states u (R, d) that stand for items of `shape`."""

    denoise: Denoiser
    shape: tuple[int, ...]

    @property
    def stop(self) -> float:
        """phi of the noisiest time."""
        return angle(self.denoise.process.at(self.denoise.process.T))

    @property
    def calls(self) -> int:
        """Network calls an evaluation takes."""
        return 2 if self.denoise.process.discrete else 1

    def slope(self, u: Tensor, phi: Tensor, rows: Tensor) -> Tensor:
        """du/dphi (R, d) of these rows of the batch; u (R, d), phi (R,)."""
        denoise, process = self.denoise.rows(rows), self.denoise.process
        first = angle(process.at(process.first))
        inside = phi.clamp(first, self.stop)
        below = (phi < first)[:, None]
        cos, tan = phi.cos()[:, None], phi.tan()[:, None]
        shown = torch.where(below, u * math.cos(first) / cos, u)
        times = [self._time(value) for value in inside.tolist()]
        found = self._between(denoise, shown, times)
        held = math.cos(first) * found + math.sin(first) * shown  # eps there, which falls with noise/signal
        return torch.where(below, held * (tan / math.tan(first)) / cos - u * tan, found)

    def _time(self, phi: float) -> Any:
        process = self.denoise.process
        return process.T if phi >= self.stop else max(process.first, process.time_of(math.tan(phi)))

    def _between(self, denoise: Denoiser, u: Tensor, times: list[Any]) -> Tensor:
        process = denoise.process
        if not process.discrete:
            return self._at(denoise, u, torch.tensor(times, dtype=torch.float64, device=u.device))
        low = [max(1, min(math.floor(t), process.T - 1)) for t in times]
        ends = [torch.tensor([min(t + up, process.T) for t in low], device=u.device) for up in (0, 1)]
        part = torch.tensor([t - k for t, k in zip(times, low, strict=True)], dtype=u.dtype, device=u.device)[:, None]
        return (1.0 - part) * self._at(denoise, u, ends[0]) + part * self._at(denoise, u, ends[1])

    def _at(self, denoise: Denoiser, u: Tensor, t: Tensor) -> Tensor:
        level = denoise.process.at_batch(t, u)
        scale = (level.signal**2 + level.noise**2).sqrt()
        p = denoise((u * scale).view(-1, *self.shape), t)
        found = (level.signal * as_rows(p.eps) - level.noise * as_rows(p.x0)) / scale
        return found.to(u.dtype)

    def traced(self, u: Tensor, phi: Tensor, rows: Tensor, probes: Tensor | None) -> Tensor:
        """The slope and traces of its Jacobian beside it, (R, d + 1) or (R, d + P).

        Gradients are taken with respect to u alone, and nothing of them is kept.

        Args:
            probes: (R, P, d) of numbers -1 and 1: each gives an estimate v^T J v (Hutchinson). None: the exact trace,
                by d gradients.
        """
        with torch.enable_grad():
            at = u.detach().requires_grad_()
            found = self.slope(at, phi, rows)
            vectors = torch.eye(u.shape[1], dtype=u.dtype, device=u.device) if probes is None else probes.unbind(1)
            last = len(vectors) - 1
            traces = [
                (torch.autograd.grad((found * v).sum(), at, retain_graph=i < last)[0] * v).sum(1)
                for i, v in enumerate(vectors)
            ]
        each = torch.stack(traces, 1).detach()
        return torch.cat([found.detach(), each.sum(1, keepdim=True) if probes is None else each], 1)
