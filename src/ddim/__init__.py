"""ddim: denoising diffusion implicit models, practical, correct and fast. See docs/notation.md for the letters."""

from ddim.analytic import GaussianDenoiser, MixtureDenoiser
from ddim.denoiser import Clip, Denoiser, DynamicThreshold, NetworkDenoiser
from ddim.noise import noise
from ddim.objective import Objective
from ddim.predict import Prediction
from ddim.sample import sample, trajectory
from ddim.schedule import Level, Schedule
from ddim.solver import DDIM, Heun, Solver
from ddim.tau import tau

__version__ = "0.1.0"

__all__ = [
    "DDIM",
    "Clip",
    "Denoiser",
    "DynamicThreshold",
    "GaussianDenoiser",
    "Heun",
    "Level",
    "MixtureDenoiser",
    "NetworkDenoiser",
    "Objective",
    "Prediction",
    "Schedule",
    "Solver",
    "noise",
    "sample",
    "tau",
    "trajectory",
]
