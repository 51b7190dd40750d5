"""The diffusion process, pure: levels and schedules, the times to visit, one step, what an output means, randomness.

Everything here is a formula of its arguments. A coefficient, or a rule for times, lives here.
"""

from ddim.process.continuous import KINDS, Continuous, edm, flow, process_of, subvp, ve, vp
from ddim.process.level import AnyLevel, Level, Process, Time, as_rows, half_log_snr, level_at
from ddim.process.objective import Objective, diffuse
from ddim.process.prediction import PARAMETERISATIONS, Parameterisation, Prediction, parameterisation, rederive
from ddim.process.randomness import MOST_SEEDS, STEP, generator, noise, parse_seeds
from ddim.process.schedule import Schedule
from ddim.process.spacings import RULES as REAL_SPACINGS
from ddim.process.step import (
    LEARNED_VARIANCES,
    PerImage,
    ddim_step,
    eta_max,
    fixedlarge_step,
    landing,
    learned_std,
    learned_step,
    sigma,
    sigma_hat,
)
from ddim.process.timelabel import TimeLabel
from ddim.process.times import SPACINGS, tau
from ddim.process.usual import DRAWS, USUAL, draw_times, usual_label, usual_spacing, usual_unit_input

__all__ = [
    "DRAWS", "KINDS", "LEARNED_VARIANCES", "MOST_SEEDS", "PARAMETERISATIONS", "REAL_SPACINGS", "SPACINGS", "STEP",
    "USUAL", "AnyLevel", "Continuous", "Level", "Objective", "Parameterisation", "PerImage", "Prediction",
    "Process", "Schedule", "Time", "TimeLabel", "as_rows", "ddim_step", "diffuse", "draw_times", "edm", "eta_max",
    "fixedlarge_step", "flow", "generator", "half_log_snr", "landing", "learned_std", "learned_step", "level_at",
    "noise", "parameterisation", "parse_seeds", "process_of", "rederive", "sigma", "sigma_hat", "subvp", "tau",
    "usual_label", "usual_spacing", "usual_unit_input", "ve", "vp",
]  # fmt: skip
