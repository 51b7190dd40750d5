"""Folders around a network of the user's own: its weights are there, its program is brought by whoever loads it."""

from ddim.checkpoints.families.family import FolderFamily
from ddim.checkpoints.families.own.folder import is_own_folder, load_own_folder, save_own_folder, without_network

FAMILY = FolderFamily("own", is_own_folder, without_network)

__all__ = ["FAMILY", "is_own_folder", "load_own_folder", "save_own_folder"]
