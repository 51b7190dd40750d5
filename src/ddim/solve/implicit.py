"""DDIM's own step, undone: the x_s from which one DDIM step leads to x_t, found to a residual tolerance.

The published inversion asks the network at the end it knows; exactness needs its answer at the unknown end:
x_s / signal_s = x_t / signal_t + (noise_s/signal_s - noise_t/signal_t) eps(x_s, s). That need not contract
(on few steps near the clean image it does not), so Anderson's mixing is followed by Newton-Krylov on the rows
that stall, and every row keeps its residual: what is returned is the best point found, with its error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Level, Prediction, as_rows, ddim_step
from ddim.refused import Refused
from ddim.solve import roots
from ddim.solve.base import Solver, Step


class Solved(NamedTuple):
    """What is known after a solved step: eps at its x_s, and of every image how well and at what price it was solved.

    Attributes:
        eps: (B, *), so that the next step need not ask for it.
        residual: (B,) = max |x_t - DDIM's step from x_s|.
        calls: (B,) int64, network rows spent.
    """

    eps: Tensor
    residual: Tensor
    calls: Tensor


@dataclass(frozen=True)
class Implicit(Solver[Solved | None]):
    """The inverse of `DDIM()`: from x at the cleaner t to the noisier s such that DDIM steps from there to x.

    Args:
        tolerance: largest |x_t - DDIM's step from x_s| of an image that counts as solved.
        mixing: network calls of Anderson's mixing on each image and step.
        memory: differences it mixes.
        rounds, krylov: Newton steps for the images that are left, and GMRES directions of each; 0 rounds to leave
            them as they are.
        difference: size of the finite differences, in units of x.

    The carry knows eps at x_t; a walk that begins without it asks once more. Images drop out of the calls as they are
    solved, their conditions with them.
    """

    tolerance: float = 1e-5
    mixing: int = 12
    memory: int = 8
    rounds: int = 2
    krylov: int = 12
    difference: float = 1e-3
    order: ClassVar[int] = 1

    def calls(self, tau: Sequence[Any]) -> int:
        """The most there can be: each step's mixing, then directions and line search of every round."""
        return (len(tau) - 1) * (1 + self.mixing + self.rounds * (self.krylov + 7))

    def init(self) -> None:
        return None

    def step(
        self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: Solved | None, z: Tensor | None
    ) -> Step[Solved | None]:
        at_t, at_s = denoise.process.at(t), denoise.process.at(s)
        gain = _gain(at_t, at_s)
        latest, calls = torch.zeros_like(x), 0
        everyone = len(x)

        def residual(u: Tensor, rows: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            x_s = u.view(-1, *x.shape[1:])
            own = denoise if len(rows) == everyone else denoise.rows(rows)
            p = own(x_s, s)
            latest[rows] = p.eps
            return as_rows(gain * (x[rows] - ddim_step(p, at_s, at_t)))

        asked = int(carry is None and at_s.signal > 0.0)
        search = roots.begin(residual, as_rows(self._guess(denoise, x, at_t, at_s, t, carry)))
        tolerance = self.tolerance * gain
        roots.anderson(residual, search, tolerance=tolerance, calls=self.mixing, memory=self.memory)
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
        solved = Solved(latest, search.error / gain, search.calls + asked)
        pair = Prediction((x_s - at_s.noise * latest) / at_s.signal if at_s.signal else torch.zeros_like(x), latest)
        return Step(x_s, solved, pair, calls + asked)

    def _guess(
        self, denoise: Denoiser, x: Tensor, at_t: Level[float], at_s: Level[float], t: Any, carry: Solved | None
    ) -> Tensor:
        """The published step with the eps already known at x_t; only the first step has to ask for it."""
        if at_s.signal == 0.0:
            return x
        if carry is None:
            return ddim_step(denoise(x, t), at_t, at_s)
        return ddim_step(Prediction((x - at_t.noise * carry.eps) / at_t.signal, carry.eps), at_t, at_s)


def _gain(at_t: Level[float], at_s: Level[float]) -> float:
    """From a defect at the cleaner end to a move of x_s: that of the fixed point, or of pure noise at signal 0.

    Raises:
        Refused: one step from the image to pure noise, of which nothing depends on x_s.
    """
    if at_s.signal == at_t.noise == 0.0:
        raise Refused("one step between the image and pure noise cannot be turned round; encode with at least 2 steps")
    return at_s.signal / at_t.signal if at_s.signal > 0.0 else at_s.noise / at_t.noise
