"""Multistep solvers on eps: Adams-Bashforth, PLMS.

With sigma = noise/signal the flow is d(x/signal)/dsigma = eps (DDIM eq. 14), so a step is DDIM's with eps
replaced by its mean over the step, estimated from earlier calls. Those are the carry: newest first, each with
its time, so that any tau may be walked, evenly spaced or not, down or up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Level, Prediction, ddim_step
from ddim.refused import Refused
from ddim.solve.base import Past, Solver, Step


@dataclass(frozen=True)
class AB(Solver[Past]):
    """Adams-Bashforth of 2 to 4 predictions of eps, integrated over sigma on the nodes actually visited.

    Step k uses min(k, order) predictions: the first is DDIM's. The order is that of the steps after them.

    Raises:
        Refused: an order that is not 2, 3 or 4.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (2, 3, 4):
            raise Refused(f"Adams-Bashforth has order 2, 3 or 4 here (order 1 is ddim), got {self.order}")

    def init(self) -> Past:
        return ()

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: Past, z: Tensor | None) -> Step[Past]:
        at_t, at_s = denoise.process.at(t), denoise.process.at(s)
        p = denoise(x, t)
        if at_t.signal == 0.0 or at_s.signal == 0.0:  # sigma is infinite: a node no later step can use
            return Step(ddim_step(p, at_t, at_s), (), p, 1)
        past: Past = ((t, p.eps), *carry)
        here, step = sigma_of(at_t), sigma_of(at_s) - sigma_of(at_t)
        nodes = [(sigma_of(denoise.process.at(q)) - here) / step for q, _ in past]
        eps = combined(mean_weights(nodes), past)
        return Step(along(p, eps, at_t, at_s), past[: self.order - 1], p, 1)


@dataclass(frozen=True)
class PLMS(Solver[Past]):
    """Pseudo linear multistep (Liu et al., arXiv 2202.09778, with Katherine Crowson's start): order 2.

    eps is averaged with the Adams-Bashforth weights of even steps in t, whatever the steps are, and moved by the
    DDIM step. The first step averages eps at both ends and so takes a second call (not at s = 0, where networks
    were never trained). On uneven steps, and on a long last one ("trailing"), `AB` has the weights that fit.
    """

    order: ClassVar[int] = 2

    def init(self) -> Past:
        return ()

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: Past, z: Tensor | None) -> Step[Past]:
        at_t, at_s = denoise.process.at(t), denoise.process.at(s)
        p = denoise(x, t)
        if at_t.signal < FLAT or at_s.signal == 0.0:
            return Step(ddim_step(p, at_t, at_s), (), p, 1)
        past: Past = ((t, p.eps), *carry)
        calls = 1
        if carry:
            eps = combined(EVEN_WEIGHTS[len(past)], past)
        elif at_s.noise > 0.0:
            calls = 2
            eps = (p.eps + denoise(ddim_step(p, at_t, at_s), s).eps) / 2
        else:
            eps = p.eps
        return Step(along(p, eps, at_t, at_s), past[:3], p, calls)

    def calls(self, tau: Sequence[Any]) -> int:
        """One a step and a second at the first; in two steps from signal 0 that one is not made."""
        return len(tau) - 1 + int(tau[1] != 0)


FLAT = 1e-3  # below this signal (the end of the cosine schedule, not of the linear one) eps is x_t: nothing to average
EVEN_WEIGHTS = {
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


def sigma_of(at: Level[float]) -> float:
    """noise/signal, the time in which the flow's slope is eps."""
    return at.noise / at.signal


def combined(weights: Sequence[float], past: Past) -> Tensor:
    """The weighted sum of predictions."""
    total = weights[0] * past[0][1]
    for w, (_, value) in zip(weights[1:], past[1:], strict=True):
        total = total + w * value
    return total


def along(p: Prediction, eps: Tensor, at_t: Level[float], at_s: Level[float]) -> Tensor:
    """The DDIM step with the slope eps: x_s = signal_s (x_t/signal_t + (sigma_s - sigma_t) eps).

    Written as a correction to the step with the pair's own eps: nothing is divided by a tiny signal_t.
    """
    weight = at_s.noise - at_s.signal * sigma_of(at_t)
    return ddim_step(p, at_t, at_s) + weight * (eps - p.eps)


def mean_weights(nodes: Sequence[float]) -> list[float]:
    """w with sum_j w_j f(u_j) = int_0^1 f(u) du for every polynomial f of degree below len(nodes)."""
    weights = []
    for j, own in enumerate(nodes):
        poly = [1.0]  # coefficients of prod_(m != j) (u - u_m) / (u_j - u_m), lowest first
        for m, other in enumerate(nodes):
            if m != j:
                scale = own - other
                poly = [
                    ((poly[k - 1] if k > 0 else 0.0) - (other * poly[k] if k < len(poly) else 0.0)) / scale
                    for k in range(len(poly) + 1)
                ]
        weights.append(sum(c / (k + 1) for k, c in enumerate(poly)))
    return weights
