"""diffusers' pipeline folders, which are ours too (they add ddim.json): network, scheduler, reading, writing."""

from ddim.checkpoints.families.diffusers.export import export_checkpoint
from ddim.checkpoints.families.diffusers.folder import save_checkpoint, save_folder
from ddim.checkpoints.families.diffusers.network import CHANGES, some, unet
from ddim.checkpoints.families.diffusers.reader import FACTS, OURS, SAMPLING, is_folder, load_folder
from ddim.checkpoints.families.diffusers.scheduler import like

__all__ = [
    "CHANGES", "FACTS", "OURS", "SAMPLING", "export_checkpoint", "is_folder", "like", "load_folder", "save_checkpoint",
    "save_folder", "some", "unet",
]  # fmt: skip
