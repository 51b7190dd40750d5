"""One folder a program whose files are read: how its weights, names and settings become ours."""

from ddim.checkpoints.families import diffusers, edm, ermongroup, lucidrains, onnx, openai, own, scoresde
from ddim.checkpoints.families.diffusers import (
    export_checkpoint,
    is_autoencoder,
    like,
    load_autoencoder,
    load_folder,
    save_autoencoder,
    save_checkpoint,
    save_folder,
)
from ddim.checkpoints.families.family import Family, FolderFamily, Found
from ddim.checkpoints.families.lucidrains import named_schedule
from ddim.checkpoints.families.onnx import write_onnx_folder
from ddim.checkpoints.families.own import is_own_folder, load_own_folder, save_own_folder
from ddim.checkpoints.families.parts import FileFamily, Parts

READERS: dict[str, Family] = {
    family.name: family
    for family in (
        onnx.FAMILY,
        diffusers.FAMILY,
        ermongroup.FAMILY,
        openai.FAMILY,
        lucidrains.FAMILY,
        edm.FAMILY,
        scoresde.FAMILY,
        own.FAMILY,
    )
}
"""All that can be opened: exactly one of them must say that something is its own."""

__all__ = [
    "READERS", "Family", "FileFamily", "FolderFamily", "Found", "Parts", "export_checkpoint", "is_autoencoder",
    "is_own_folder", "like", "load_autoencoder", "load_folder", "load_own_folder", "named_schedule",
    "save_autoencoder", "save_checkpoint", "save_folder", "save_own_folder", "write_onnx_folder",
]  # fmt: skip
