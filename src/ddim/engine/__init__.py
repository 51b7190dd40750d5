"""How a network is run, never what it computes: device, precision, layout, packing, compilation, memory, ONNX."""

from ddim.engine.compiled import Compiled, Decision, When, compile_decision, why_not_compiled
from ddim.engine.counting import operations
from ddim.engine.current import Current, undisturbed, weight_sums
from ddim.engine.devices import DTYPES, Precision, has_fast_bf16, pick_device, pick_precision, training_attention
from ddim.engine.exported import Exported
from ddim.engine.memory import call_bytes, fitting_batch
from ddim.engine.onnx import INPUTS, OnnxNetwork, onnx_session, require
from ddim.engine.packed import PackedConv2d, why_not_packed
from ddim.engine.prepare import prepared, uneven

__all__ = [
    "DTYPES", "INPUTS", "Compiled", "Current", "Decision", "Exported", "OnnxNetwork", "PackedConv2d", "Precision",
    "When", "call_bytes", "compile_decision", "fitting_batch", "has_fast_bf16", "onnx_session", "operations",
    "pick_device",
    "pick_precision", "prepared", "require", "training_attention", "undisturbed", "uneven", "weight_sums",
    "why_not_compiled", "why_not_packed",
]  # fmt: skip
