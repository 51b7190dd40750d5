"""Everybody's DDPM checkpoints as one `Checkpoint`: diffusers, ermongroup, OpenAI, lucidrains."""

from ddim.checkpoints.folder import load_folder, save_checkpoint, save_folder
from ddim.checkpoints.opening import FAMILIES, open_checkpoint
from ddim.checkpoints.record import Checkpoint

__all__ = ["FAMILIES", "Checkpoint", "load_folder", "open_checkpoint", "save_checkpoint", "save_folder"]
