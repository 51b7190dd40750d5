"""All solvers by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ddim.process import PerImage
from ddim.refused import Refused
from ddim.solve.adams import AB, PLMS
from ddim.solve.base import Solver
from ddim.solve.ddim import DDIM
from ddim.solve.dpmpp import DPMSolverPP
from ddim.solve.heun import Heun
from ddim.solve.langevin import Langevin, PredictorCorrector
from ddim.solve.maruyama import Churned, EulerMaruyama
from ddim.solve.unipc import UniPC

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

SDE: dict[str, Callable[..., Solver[Any]]] = {
    "euler-maruyama": EulerMaruyama,
    "pc": PredictorCorrector,
    "langevin": Langevin,
    "heun-churn": Churned,
}
"""Samplers of the reverse SDE by name, at their papers' settings; their noise is not DDIM's eta."""


def solver_named(name: str, eta: PerImage = 0.0) -> Solver[Any]:
    """The solver of that name; eta, for all images or one an image, is for "ddim" ("dpm++2m-sde" has eta = 1 built in).

    Raises:
        Refused: an unknown name, or an eta the solver cannot have.
    """
    if name not in SOLVERS and name not in SDE:
        raise Refused(f"unknown solver {name!r}; choose one of {', '.join((*SOLVERS, *SDE))}")
    if name == "ddim":
        return DDIM(eta)
    solver = (SOLVERS | SDE)[name]()
    asked = set(eta) if isinstance(eta, Sequence) else {eta}
    if asked - {0.0} and not (solver.stochastic and asked == {1.0}):
        kind = "always injects the noise of eta = 1" if solver.stochastic else "is deterministic"
        found = ", ".join(f"{one:g}" for one in sorted(asked))
        raise Refused(f"solver {name!r} {kind}, but eta = {found} was asked for; eta is for solver 'ddim'")
    return solver
