"""`ddim export`: any model as a folder that diffusers' pipelines run, or for ONNX Runtime."""

from __future__ import annotations

from typing import Literal

import ddim
from ddim.cli import options
from ddim.refused import Refused


@options.command
class Command(options.NewFolder, options.OfModel):
    """Write a model as a diffusers folder, or as an ONNX one that every ddim command runs on the CPU."""

    to: Literal["diffusers", "onnx"] = "diffusers"
    """For whom; onnx needs pip install 'ddim[onnx]'."""
    dtype: Literal["fp32", "fp16", "bf16", "int8"] = "fp32"
    """Number format: of the stored weights (diffusers: fp32, fp16, bf16) or of the arithmetic (onnx: fp32, int8).
    int8 is faster on a CPU and moves the images a little: docs/engine.md says how much of both."""
    variance: bool = False
    """For diffusers: keep a learned variance. DDPMPipeline samples with it; DDIMPipeline needs it left out."""

    def run(self) -> None:
        self.refuse_existing()
        if self.to == "diffusers" and self.dtype == "int8":
            raise Refused("--dtype int8 is for --to onnx: diffusers has no int8 arithmetic on a CPU")
        if self.to == "onnx" and self.dtype in ("fp16", "bf16"):
            raise Refused(f"--to onnx takes --dtype fp32 or int8: ONNX Runtime has no {self.dtype} on a CPU")
        if self.to == "onnx" and self.variance:
            raise Refused("--variance is for --to diffusers: an ONNX folder keeps all that the network returns")
        checkpoint = self.load().checkpoint
        if self.to == "onnx":
            ddim.jobs.export_onnx(self.out, checkpoint, precision=self.dtype)
            size = (self.out / "network.onnx").stat().st_size / 2**20
            print(f"written to {self.out}, {size:.1f} MB; use it like any model: ddim sample {self.out} --out DIR")
            return
        dtype = ddim.engine.DTYPES[self.dtype]
        notes = ddim.checkpoints.export_checkpoint(self.out, checkpoint, dtype=dtype, variance=self.variance)
        pipeline = ddim.files.read_json(self.out / "model_index.json")["_class_name"]
        print(f"written to {self.out}; diffusers.{pipeline}.from_pretrained reads it")
        for note in notes:
            print(f"note: {note}")
