"""`ddim export`: any model as a folder that diffusers' DDIMPipeline runs, or for ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from ddim.checkpoints import Checkpoint, export_checkpoint
from ddim.jobs import export_onnx
from ddim.model import load
from ddim.refused import Refused

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Command:
    """Write a model as a diffusers folder, or as an ONNX one that every ddim command runs on the CPU."""

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    out: tyro.conf.Positional[Path]
    """The folder to write; it must not exist."""
    to: Literal["diffusers", "onnx"] = "diffusers"
    """For whom; onnx needs pip install 'ddim[onnx]'."""
    dtype: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    """Number format: of the stored weights (diffusers: fp32, fp16, bf16) or of the arithmetic (onnx: fp32, int8).
    int8 is faster on a CPU and moves the images a little: docs/engine.md says how much of both."""

    def run(self) -> None:
        if self.out.exists():
            raise Refused(f"{self.out} exists; nothing is overwritten, choose a new folder")
        if self.to == "diffusers" and self.dtype == "int8":
            raise Refused("--dtype int8 is for --to onnx: diffusers has no int8 arithmetic on a CPU")
        if self.to == "onnx" and self.dtype in ("fp16", "bf16"):
            raise Refused(f"--to onnx takes --dtype fp32 or int8: ONNX Runtime has no {self.dtype} on a CPU")
        checkpoint = load(self.model).checkpoint
        if self.to == "onnx":
            self._onnx(checkpoint)
            return
        notes = export_checkpoint(self.out, checkpoint, dtype=TYPES[self.dtype])
        print(f"written to {self.out}; diffusers.DDIMPipeline.from_pretrained reads it")
        for note in notes:
            print(f"note: {note}")

    def _onnx(self, checkpoint: Checkpoint) -> None:
        export_onnx(self.out, checkpoint, precision=self.dtype)
        size = (self.out / "network.onnx").stat().st_size / 2**20
        print(f"written to {self.out}, {size:.1f} MB; use it like any model: ddim sample {self.out} --out DIR")
