"""Architectures by name, the adapters our code calls, averages of weights."""

from ddim.nets.ema import Ema
from ddim.nets.lucidrains import LucidrainsUnet
from ddim.nets.own import OwnNetwork
from ddim.nets.seeding import torch_randomness
from ddim.nets.unet import CHANGES, PRESETS, DiffusersNetwork, build

__all__ = [
    "CHANGES", "PRESETS", "DiffusersNetwork", "Ema", "LucidrainsUnet", "OwnNetwork", "build", "torch_randomness",
]  # fmt: skip
