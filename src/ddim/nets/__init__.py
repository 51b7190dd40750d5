"""Architectures by name, the adapter our code calls, averages of weights."""

from ddim.nets.ema import Ema
from ddim.nets.lucidrains import CLASS
from ddim.nets.own import OwnNetwork
from ddim.nets.unet import PRESETS, DiffusersNetwork, build, torch_randomness

__all__ = ["CLASS", "PRESETS", "DiffusersNetwork", "Ema", "OwnNetwork", "build", "torch_randomness"]
