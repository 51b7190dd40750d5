"""How a network is run, never what it computes: device, precision, layout, packing, compilation, memory, ONNX."""

from ddim.engine.exported import Exported
from ddim.engine.memory import call_bytes, fitting_batch
from ddim.engine.onnx import EXTRA, INPUTS, OnnxNetwork, require
from ddim.engine.run import (
    DTYPES,
    Compiled,
    Decision,
    PackedConv2d,
    Precision,
    When,
    compile_decision,
    has_fast_bf16,
    pick_device,
    pick_precision,
    prepared,
    training_attention,
    uneven,
    why_not_compiled,
    why_not_packed,
)

__all__ = [
    "DTYPES", "EXTRA", "INPUTS", "Compiled", "Decision", "Exported", "OnnxNetwork", "PackedConv2d", "Precision", "When",
    "call_bytes", "compile_decision", "fitting_batch", "has_fast_bf16", "pick_device", "pick_precision", "prepared",
    "require", "training_attention", "uneven", "why_not_compiled", "why_not_packed",
]  # fmt: skip
