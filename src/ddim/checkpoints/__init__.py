"""Everybody's files: a network with all a sampler must know about it, read safely and written whole.

Whatever knows another program's file lives in `families`.
"""

from ddim.checkpoints.families import (
    export_checkpoint,
    is_autoencoder,
    load_folder,
    save_autoencoder,
    save_checkpoint,
    save_folder,
    save_own_folder,
    write_onnx_folder,
)
from ddim.checkpoints.opening import open_autoencoder, open_checkpoint
from ddim.checkpoints.probe import Verdict, clearly_below, denoising_error, probe_checkpoint
from ddim.checkpoints.record import Checkpoint
from ddim.checkpoints.safety import read_torch
from ddim.checkpoints.settings import read_settings
from ddim.checkpoints.student import Student
from ddim.checkpoints.tuned import (
    guidance_key,
    handover_key,
    keep_tuned,
    load_tuned,
    load_tuned_guidance,
    load_tuned_handover,
    save_tuned,
)

__all__ = [
    "Checkpoint", "Student", "Verdict", "clearly_below", "denoising_error", "export_checkpoint",
    "guidance_key", "handover_key", "is_autoencoder", "keep_tuned", "load_folder", "load_tuned",
    "load_tuned_guidance", "load_tuned_handover", "open_autoencoder", "open_checkpoint", "probe_checkpoint",
    "read_settings", "read_torch", "save_autoencoder", "save_checkpoint", "save_folder", "save_own_folder",
    "save_tuned", "write_onnx_folder",
]  # fmt: skip
