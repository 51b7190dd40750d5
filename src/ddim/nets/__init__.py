"""Architectures by name, the adapters our code calls, averages of weights."""

from ddim.nets.architectures import AUTOENCODERS, PatchCritic, Trainee, new_autoencoder
from ddim.nets.autoencoder import Autoencoder
from ddim.nets.ema import Ema
from ddim.nets.lengths import LONGEST, combination, gamma_of, inner, length_of
from ddim.nets.lucidrains import LucidrainsUnet
from ddim.nets.own import OwnNetwork, adapted
from ddim.nets.powers import LENGTHS, Powers
from ddim.nets.scoreunet import ScoreUnet, plan
from ddim.nets.seeding import torch_randomness
from ddim.nets.unet import CHANGES, PRESETS, DiffusersNetwork, build

__all__ = [
    "AUTOENCODERS", "CHANGES", "LENGTHS", "LONGEST", "PRESETS", "Autoencoder", "DiffusersNetwork", "Ema",
    "LucidrainsUnet", "OwnNetwork", "PatchCritic", "Powers", "ScoreUnet", "Trainee",
    "adapted", "build", "combination", "gamma_of", "inner", "length_of", "new_autoencoder", "plan", "torch_randomness",
]  # fmt: skip
