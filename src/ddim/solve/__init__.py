"""How to step: solvers, and the one loop that walks them over the times.

Whatever combines calls of a denoiser lives here.
"""

from ddim.solve.adams import AB, PLMS
from ddim.solve.adaptive import integrated
from ddim.solve.base import Solver, Step
from ddim.solve.coupled import GROWTH, Coupled, Older, gamma_for
from ddim.solve.ddim import DDIM
from ddim.solve.dpmpp import DPMSolverPP
from ddim.solve.field import Field
from ddim.solve.flowing import Adaptive
from ddim.solve.fresh import Fresh
from ddim.solve.heun import Heun
from ddim.solve.implicit import Implicit, Solved
from ddim.solve.langevin import Langevin, PredictorCorrector
from ddim.solve.maruyama import Churned, EulerMaruyama
from ddim.solve.named import SDE, SOLVERS, solver_named
from ddim.solve.unipc import UniPC
from ddim.solve.walk import asked, end_of, refuse_whole_numbers, sample, step_noise, trajectory

__all__ = [
    "AB", "DDIM", "GROWTH", "PLMS", "SDE", "SOLVERS", "Adaptive", "Churned", "Coupled", "DPMSolverPP",
    "EulerMaruyama", "Field", "Fresh", "Heun", "Implicit", "Langevin", "Older", "PredictorCorrector", "Solved",
    "Solver", "Step", "UniPC", "asked", "end_of", "gamma_for", "integrated", "refuse_whole_numbers", "sample",
    "solver_named", "step_noise", "trajectory",
]  # fmt: skip
