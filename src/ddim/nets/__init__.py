"""Architectures by name, the adapters our code calls, averages of weights."""

from ddim.nets.ema import Ema
from ddim.nets.lucidrains import LucidrainsUnet
from ddim.nets.own import OwnNetwork, adapted, weights_hash
from ddim.nets.seeding import torch_randomness
from ddim.nets.unet import CHANGES, PRESETS, DiffusersNetwork, build

__all__ = [
    "CHANGES", "PRESETS", "DiffusersNetwork", "Ema", "LucidrainsUnet", "OwnNetwork", "adapted", "build",
    "torch_randomness", "weights_hash",
]  # fmt: skip
