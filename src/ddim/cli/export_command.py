"""`ddim export`: any model as a folder that diffusers' DDIMPipeline runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import tyro

from ddim.checkpoints.export import export_checkpoint
from ddim.model import load

TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Command:
    """Write a model as a diffusers folder."""

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    out: tyro.conf.Positional[Path]
    """The folder to write; it must not exist."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number format of the stored weights."""

    def run(self) -> None:
        if self.out.exists():
            raise ValueError(f"{self.out} exists; nothing is overwritten, choose a new folder")
        notes = export_checkpoint(self.out, load(self.model).checkpoint, dtype=TYPES[self.dtype])
        print(f"written to {self.out}; diffusers.DDIMPipeline.from_pretrained reads it")
        for note in notes:
            print(f"note: {note}")
