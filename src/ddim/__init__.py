"""ddim: denoising diffusion implicit models, practical, correct and fast. See docs/notation.md for the letters."""

from typing import TYPE_CHECKING, Any

from ddim.analytic import GaussianDenoiser, MixtureDenoiser
from ddim.denoiser import Clip, Denoiser, DynamicThreshold, NetworkDenoiser
from ddim.guidance import Guided
from ddim.interpolate import lerp, slerp, vp_lerp
from ddim.invert import decode, encode
from ddim.latents import Latents
from ddim.multistep import AB, PLMS, DPMSolverPP, UniPC
from ddim.noise import noise
from ddim.objective import Objective
from ddim.predict import Prediction
from ddim.sample import sample, trajectory
from ddim.schedule import Level, Schedule
from ddim.solver import DDIM, Heun, Solver
from ddim.tau import tau

if TYPE_CHECKING:
    from ddim.model import Model, load

__version__ = "0.1.0"

__all__ = [
    "AB",
    "DDIM",
    "PLMS",
    "Clip",
    "DPMSolverPP",
    "Denoiser",
    "DynamicThreshold",
    "GaussianDenoiser",
    "Guided",
    "Heun",
    "Latents",
    "Level",
    "MixtureDenoiser",
    "Model",
    "NetworkDenoiser",
    "Objective",
    "Prediction",
    "Schedule",
    "Solver",
    "UniPC",
    "decode",
    "encode",
    "lerp",
    "load",
    "noise",
    "sample",
    "slerp",
    "tau",
    "trajectory",
    "vp_lerp",
]


def __getattr__(name: str) -> Any:
    """`ddim.load` and `ddim.Model` stand on everything else, so they are imported when first asked for."""
    if name in ("Model", "load"):
        from ddim import model

        return getattr(model, name)
    raise AttributeError(f"module 'ddim' has no attribute {name!r}")
