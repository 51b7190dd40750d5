"""ddim: denoising diffusion implicit models, practical, correct and fast. See docs/notation.md for the letters.

What most scripts need is here; the rest lives in folders that are reached from here too: `ddim.process`,
`ddim.denoise`, `ddim.solve`, `ddim.uses`, `ddim.pixels`, `ddim.data`, `ddim.nets`, `ddim.engine`, `ddim.metrics`,
`ddim.checkpoints`, `ddim.model`, `ddim.jobs`. Each is imported when first asked for, so that help answers at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ddim.files import VERSION
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim import checkpoints, data, denoise, engine, jobs, metrics, model, nets, pixels, process, solve, uses
    from ddim.denoise import Clip, Conditions, Denoiser, GaussianDenoiser, Guided, MixtureDenoiser, NetworkDenoiser
    from ddim.model import Model, Sampler, load
    from ddim.process import Level, Schedule, noise, tau
    from ddim.solve import AB, DDIM, PLMS, DPMSolverPP, Heun, UniPC, sample, trajectory
    from ddim.uses import Latents, decode, encode, slerp

__version__ = VERSION

_HOMES = {
    "denoise": ("Clip", "Conditions", "Denoiser", "GaussianDenoiser", "Guided", "MixtureDenoiser", "NetworkDenoiser"),
    "model": ("Model", "Sampler", "load"),
    "process": ("Level", "Schedule", "noise", "tau"),
    "solve": ("AB", "DDIM", "PLMS", "DPMSolverPP", "Heun", "UniPC", "sample", "trajectory"),
    "uses": ("Latents", "decode", "encode", "slerp"),
}
_FOLDERS = (
    "checkpoints", "data", "denoise", "engine", "jobs", "metrics", "model", "nets", "pixels", "process", "solve",
    "uses",
)  # fmt: skip
_EARLIER = {  # what scripts written before the folders stood import from here
    "denoise": ("DynamicThreshold",),
    "process": ("Objective", "Prediction"),
    "solve": ("Solver",),
    "uses": ("lerp", "vp_lerp"),
}
_HOME_OF = {name: home for table in (_HOMES, _EARLIER) for home, names in table.items() for name in names}

__all__ = [
    "AB", "DDIM", "PLMS", "Clip", "Conditions", "DPMSolverPP", "Denoiser", "GaussianDenoiser", "Guided", "Heun",
    "Latents", "Level", "MixtureDenoiser", "Model", "NetworkDenoiser", "Refused", "Sampler", "Schedule", "UniPC",
    "__version__", "checkpoints", "data", "decode", "denoise", "encode", "engine", "jobs", "load", "metrics", "model",
    "nets", "noise", "pixels", "process", "sample", "slerp", "solve", "tau", "trajectory", "uses",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """A name of a folder below, or the folder, imported when first asked for."""
    if name in _FOLDERS:
        return importlib.import_module(f"ddim.{name}")
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"ddim.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'ddim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
