"""Folders whose network ONNX Runtime runs."""

from ddim.checkpoints.families.family import FolderFamily
from ddim.checkpoints.families.onnx.folder import is_onnx_folder, load_onnx_folder, write_onnx_folder

FAMILY = FolderFamily("onnx", is_onnx_folder, load_onnx_folder)

__all__ = ["FAMILY", "write_onnx_folder"]
