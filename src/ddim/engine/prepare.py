"""The network made ready to run: precision, memory layout, prepacking, compilation. Never what it computes.

The state x and all coefficients keep their own precision; only the network's inside changes. `prepared`
works on a copy, so that the weights that were loaded stay as they were. Each switch is kept because it was
measured to help (docs/engine.md says how much, and what was left out because it did not).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ddim.engine.compiled import Compiled
from ddim.engine.devices import DTYPES, pick_precision
from ddim.engine.exported import Exported
from ddim.engine.packed import PackedConv2d, packable, why_not_packed
from ddim.refused import Refused


def prepared(
    network: nn.Module,
    precision: str = "fp32",
    *,
    channels_last: bool | None = None,
    packed: bool | None = None,
    compiled: bool = False,
) -> nn.Module:
    """The network ready to run: in eval mode, in that precision, laid out for this device, optionally compiled.

    Args:
        network: left as it is; what comes back is a copy unless nothing has to change. Where the type of the
            weights stays, the copy shares them.
        precision: "auto", "fp32", "bf16", "fp16" or "fp64": the type of weights and activations.
        channels_last: NHWC memory. Default: where it was measured to help, that is in half precision.
        packed: convolution weights kept in oneDNN's own order beside the plain ones. Default: on a CPU that can.
            On a CPU, half precision gets neither by default if the network has `uneven` widths.
        compiled: run through torch.compile; pays only for very long jobs, see `compile_decision`. Where it
            cannot be done, the network runs as it is and a warning says why.

    Raises:
        Refused: an unknown precision; packing asked for where it cannot be done.
    """
    if isinstance(network, Exported):
        raise Refused("an exported network has no switches: its runtime has settled how it runs")
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    name = pick_precision(precision, device)
    half = name in ("bf16", "fp16")
    plain = half and device.type == "cpu" and uneven(network)
    last = half and not plain if channels_last is None else channels_last
    obstacle = why_not_packed(device, name)
    if packed and obstacle:
        raise Refused(f"convolution weights cannot be packed: {obstacle}")
    pack = obstacle is None and not compiled and not plain if packed is None else packed
    network.eval()
    if name == "fp32" and not last and not compiled and not (pack and packable(network)):
        return network
    # Module.to converts a shared Parameter in place, so weights are shared only where nothing is converted.
    shared = [*network.parameters(), *network.buffers()] if name == "fp32" and not last else []
    ready = copy.deepcopy(network, {id(t): t for t in shared})
    if not shared:
        ready = ready.to(DTYPES[name])
    if last:
        ready = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    if pack:
        for conv in packable(ready):
            conv.__class__ = PackedConv2d
    ready.register_forward_hook(_row_major)
    return Compiled(ready, device) if compiled else ready


def uneven(network: nn.Module) -> bool:
    """Whether some convolution has a width that is no multiple of 16, image channels (up to 4) aside.

    oneDNN's bf16 kernels work on blocks of 16 channels: at other widths blocked and NHWC layouts cost more than they
    save (docs/engine.md).
    """
    convs = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return any(width > 4 and width % 16 for m in convs for width in (m.in_channels, m.out_channels))


def _row_major(_module: nn.Module, _args: Any, out: Any) -> Any:
    """The state stays row-major (view, safetensors and a caller's own code need it) whatever runs inside."""
    return out.contiguous() if isinstance(out, Tensor) else out
