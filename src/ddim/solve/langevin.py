"""Samplers with Langevin steps: annealed dynamics, and a corrector behind every step of a predictor.

At a level whose law has the score -eps/noise, x + a/2 score + sqrt(a) z, repeated, tends to that law; for Gaussian data
of variance c there, to c/(1 - a/(4c)) exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Level, Prediction, as_rows, ddim_step
from ddim.refused import Refused
from ddim.solve.base import Solver, Step
from ddim.solve.maruyama import EulerMaruyama


@dataclass(frozen=True)
class Langevin(Solver[None]):
    """Annealed Langevin dynamics (arXiv 1907.05600, algorithm 1): `repeats` steps at t, then x/signal is taken on to s.

    x += -size/2 noise eps + sqrt(size) noise z, that is the paper's step a = size noise^2. On the step to the clean
    image the last x is denoised (arXiv 2006.09011, section 3.4). Where there is no signal the way down is DDPM's step.

    Args:
        size: a/noise^2; 0.2 is the paper's (2e-5 at its least noise 0.01). repeats: of each level.

    Raises:
        Refused: a size outside 0..4, beyond which the steps grow without bounds; fewer than one repeat.
    """

    size: float = 0.2
    repeats: int = 5
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.size < 4.0:
            raise Refused(f"size must lie between 0 and 4, where Langevin steps settle, got {self.size}")
        if self.repeats < 1:
            raise Refused(f"repeats must be at least 1, got {self.repeats}")

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def draws(self) -> int:
        return self.repeats + 1

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: None, z: Tensor | None) -> Step[None]:
        assert z is not None  # trajectory sees to it
        at_t, at_s = denoise.process.at(t), denoise.process.at(s)
        first = p = denoise(x, t)
        for k in range(self.repeats):
            p = p if k == 0 else denoise(x, t)
            x = x - self.size / 2 * at_t.noise * p.eps + math.sqrt(self.size) * at_t.noise * z[k]
        if at_s.noise == 0.0:
            return Step(denoise(x, t).x0, None, first, self.repeats + 1)
        if at_t.signal == 0.0:
            return Step(ddim_step(denoise(x, t), at_t, at_s, eta=1.0, z=z[-1]), None, first, self.repeats + 1)
        return Step(x * (at_s.signal / at_t.signal), None, first, self.repeats)

    def calls(self, tau: Sequence[Any]) -> int:
        return self.repeats * (len(tau) - 1) + int(tau[-1] == 0)


@dataclass(frozen=True)
class PredictorCorrector(Solver[None]):
    """A step of the reverse SDE, then Langevin steps at the level it led to (arXiv 2011.13456, algorithms 2 to 5).

    The corrector's step is 2 (snr |z|/|score|)^2, each image by its own norms. None on the clean image.

    Args:
        snr: how large the corrector's noise is beside its drift; 0.16 is the paper's for 32 x 32 images.
        corrections: Langevin steps a level.

    Raises:
        Refused: snr not above 0; fewer than one correction.
    """

    snr: float = 0.16
    corrections: int = 1
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not 0.0 < self.snr < math.inf:
            raise Refused(f"snr must be above 0, got {self.snr}")
        if self.corrections < 1:
            raise Refused(f"corrections must be at least 1, got {self.corrections}; without any it is EulerMaruyama")

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def draws(self) -> int:
        return self.corrections + 1

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: None, z: Tensor | None) -> Step[None]:
        assert z is not None  # trajectory sees to it
        moved = EulerMaruyama().step(denoise, x, t, s, None, z[0])
        x, at_s = moved.x, denoise.process.at(s)
        if at_s.noise == 0.0:
            return moved
        for k in range(1, self.corrections + 1):
            x = self._corrected(denoise(x, s), at_s, x, z[k])
        return Step(x, None, moved.prediction, 1 + self.corrections)

    def _corrected(self, p: Prediction, at: Level[float], x: Tensor, z: Tensor) -> Tensor:
        shape = (-1, *([1] * (x.ndim - 1)))
        long, drift = (torch.linalg.vector_norm(as_rows(v), dim=1).view(shape) for v in (z, p.eps))
        size = 2 * (self.snr * at.noise * long / drift.clamp(min=torch.finfo(x.dtype).tiny)) ** 2
        moved: Tensor = x - size / at.noise * p.eps + (2 * size).sqrt() * z
        return moved

    def calls(self, tau: Sequence[Any]) -> int:
        return len(tau) - 1 + self.corrections * (len(tau) - 2 if tau[-1] == 0 else len(tau) - 1)
