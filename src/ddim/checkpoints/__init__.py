"""Everybody's DDPM checkpoints as one `Checkpoint`."""

from ddim.checkpoints.folder import load_folder, save_folder
from ddim.checkpoints.record import Checkpoint

__all__ = ["Checkpoint", "load_folder", "save_folder"]
