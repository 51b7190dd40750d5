"""One folder a program whose files are read: how its weights, names and settings become ours."""

from types import ModuleType

from ddim.checkpoints.families import ermongroup, lucidrains, openai
from ddim.checkpoints.families.diffusers import (
    CHANGES,
    export_checkpoint,
    is_folder,
    like,
    load_folder,
    save_checkpoint,
    save_folder,
)
from ddim.checkpoints.families.onnx import is_onnx_folder, load_onnx_folder, write_onnx_folder

READERS: dict[str, ModuleType] = {"ermongroup": ermongroup, "openai": openai, "lucidrains": lucidrains}
"""Programs that write one file: `is_this(content)` tells theirs, `read(content, settings, where)` gives its parts."""

__all__ = [
    "CHANGES", "READERS", "export_checkpoint", "is_folder", "is_onnx_folder", "like", "load_folder", "load_onnx_folder",
    "save_checkpoint", "save_folder", "write_onnx_folder",
]  # fmt: skip
