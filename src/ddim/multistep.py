"""Multistep solvers on eps (Adams-Bashforth, PLMS), and all solvers by name.

With sigma = noise/signal the flow is d(x/signal)/dsigma = eps (DDIM eq. 14), so a step is DDIM's with eps
replaced by its mean over the step, estimated from earlier calls. Those are the carry: newest first, each with
its time, so that any tau may be walked, evenly spaced or not, down or up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ddim import update
from ddim.denoiser import Denoiser
from ddim.dpmsolver import DPMSolverPP, Past
from ddim.predict import Prediction
from ddim.schedule import Level
from ddim.solver import DDIM, Heun, Solver
from ddim.unipc import UniPC

__all__ = ["AB", "PLMS", "SOLVERS", "DPMSolverPP", "UniPC", "mean_weights", "solver_named"]


@dataclass(frozen=True)
class AB:
    """Adams-Bashforth of 2 to 4 predictions of eps, integrated over sigma on the nodes actually visited.

    Step k uses min(k, order) predictions: the first is DDIM's. The order is that of the steps after them.

    Raises:
        ValueError: an order that is not 2, 3 or 4.
    """

    order: int = 2
    nfe: int = 1
    stochastic: bool = False

    def __post_init__(self) -> None:
        if self.order not in (2, 3, 4):
            raise ValueError(f"Adams-Bashforth has order 2, 3 or 4 here (order 1 is ddim), got {self.order}")

    def init(self) -> Past:
        return ()

    def step(self, denoise: Denoiser, x: Tensor, t: int, s: int, carry: Past, z: Any) -> tuple[Tensor, Past]:
        at_t, at_s = denoise.schedule.at(t), denoise.schedule.at(s)
        p = denoise(x, t)
        if at_t.signal == 0.0 or at_s.signal == 0.0:  # sigma is infinite: a node no later step can use
            return update.ddim(p, at_t, at_s), ()
        past: Past = ((t, p.eps), *carry)
        here, step = sigma_of(at_t), sigma_of(at_s) - sigma_of(at_t)
        nodes = [(sigma_of(denoise.schedule.at(q)) - here) / step for q, _ in past]
        eps = combined(mean_weights(nodes), past)
        return along(p, eps, at_t, at_s), past[: self.order - 1]


@dataclass(frozen=True)
class PLMS:
    """Pseudo linear multistep (Liu et al., arXiv 2202.09778, with Katherine Crowson's start): order 2.

    eps is averaged with the Adams-Bashforth weights of even steps in t, whatever the steps are, and moved by the
    DDIM step. The first step averages eps at both ends and so takes a second call (not at s = 0, where networks
    were never trained). On uneven steps, and on a long last one ("trailing"), `AB` has the weights that fit.
    """

    order: int = 2
    nfe: int = 1
    stochastic: bool = False

    def init(self) -> Past:
        return ()

    def step(self, denoise: Denoiser, x: Tensor, t: int, s: int, carry: Past, z: Any) -> tuple[Tensor, Past]:
        at_t, at_s = denoise.schedule.at(t), denoise.schedule.at(s)
        p = denoise(x, t)
        if at_t.signal < FLAT or at_s.signal == 0.0:
            return update.ddim(p, at_t, at_s), ()
        past: Past = ((t, p.eps), *carry)
        if carry:
            eps = combined(EVEN_WEIGHTS[len(past)], past)
        elif s > 0:
            eps = (p.eps + denoise(update.ddim(p, at_t, at_s), s).eps) / 2
        else:
            eps = p.eps
        return along(p, eps, at_t, at_s), past[:3]


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
    return update.ddim(p, at_t, at_s) + weight * (eps - p.eps)


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


SOLVERS: dict[str, Callable[..., Solver[Any]]] = {
    "ddim": DDIM,
    "heun": Heun,
    "ab2": lambda: AB(2),
    "ab3": lambda: AB(3),
    "ab4": lambda: AB(4),
    "plms": PLMS,
    "dpm++2m": lambda: DPMSolverPP(2),
    "dpm++3m": lambda: DPMSolverPP(3),
    "dpm++2m-sde": lambda: DPMSolverPP(2, stochastic=True),
    "unipc": lambda: UniPC(2),
    "unipc3": lambda: UniPC(3),
    "unipc-b1": lambda: UniPC(2, "B1"),
}


def solver_named(name: str, eta: float = 0.0) -> Solver[Any]:
    """The solver of that name; eta belongs to "ddim" alone ("dpm++2m-sde" has eta = 1 built in).

    Raises:
        ValueError: an unknown name, or an eta the solver cannot have.
    """
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; choose one of {', '.join(SOLVERS)}")
    if name == "ddim":
        return DDIM(eta)
    solver = SOLVERS[name]()
    if eta and not (solver.stochastic and eta == 1.0):
        kind = "always injects the noise of eta = 1" if solver.stochastic else "is deterministic"
        raise ValueError(f"solver {name!r} {kind}, but eta = {eta:g} was asked for; eta is for solver 'ddim'")
    return solver
