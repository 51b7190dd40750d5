"""diffusers' pipeline folders, which are ours too (they add ddim.json): network, scheduler, reading, writing."""

from ddim.checkpoints.families.diffusers.betas import like
from ddim.checkpoints.families.diffusers.export import export_checkpoint
from ddim.checkpoints.families.diffusers.folder import save_checkpoint, save_folder
from ddim.checkpoints.families.diffusers.lone import is_autoencoder, load_autoencoder, save_autoencoder
from ddim.checkpoints.families.diffusers.network import filled_unet, some
from ddim.checkpoints.families.diffusers.reader import is_folder, load_folder
from ddim.checkpoints.families.family import FolderFamily

FAMILY = FolderFamily("diffusers", is_folder, load_folder)

__all__ = [
    "FAMILY", "export_checkpoint", "filled_unet", "is_autoencoder", "like", "load_autoencoder", "load_folder",
    "save_autoencoder", "save_checkpoint", "save_folder", "some",
]  # fmt: skip
