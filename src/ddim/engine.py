"""How the network is run: device, precision, memory layout, compilation. Never what it computes.

The state x and all coefficients keep their own precision; only the network's inside changes. `prepared`
works on a copy, so that the weights that were loaded stay as they were. Each switch is kept because it was
measured to help (docs/results.md says how much and where not).
"""

from __future__ import annotations

import copy
import shutil
from typing import Literal

import torch
from torch import nn

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; "auto" is the accelerator torch sees, else the CPU.

    Raises:
        ValueError: a device this machine does not have.
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return picked


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is done in hardware: AVX512-BF16 or AMX on a CPU, a GPU that says so."""
    if device.type == "cpu":
        return bool({"avx512_bf16", "amx_bf16"} & {k for k, v in torch.cpu.get_capabilities().items() if v})
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def pick_precision(precision: str, device: torch.device) -> str:
    """The precision of that name; "auto" is bf16 where the hardware has it, else fp32.

    Raises:
        ValueError: an unknown precision.
    """
    if precision == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if precision not in DTYPES:
        raise ValueError(f"precision is auto, {', '.join(DTYPES)}; got {precision!r}")
    return precision


def prepared(
    network: nn.Module, precision: str = "fp32", *, channels_last: bool | None = None, compiled: bool = False
) -> nn.Module:
    """The network ready to run: in eval mode, in that precision, laid out for this device, optionally compiled.

    Args:
        network: left as it is; what comes back is a copy unless nothing has to change.
        precision: "auto", "fp32", "bf16", "fp16" or "fp64": the type of weights and activations.
        channels_last: NHWC memory. Default: where it was measured to help, that is in half precision.
        compiled: run through torch.compile; pays only for long jobs (a minute of compiling and more on a CPU).

    Raises:
        ValueError: an unknown precision; compilation asked for where there is no C++ compiler.
    """
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    name = pick_precision(precision, device)
    half = name in ("bf16", "fp16")
    last = half if channels_last is None else channels_last
    if name == "fp32" and not last and not compiled:
        return network.eval()
    ready = copy.deepcopy(network).eval().to(DTYPES[name])
    if last:
        ready = ready.to(memory_format=torch.channels_last)
    if not compiled:
        return ready
    if device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        raise ValueError("torch.compile needs a C++ compiler on a CPU and none was found; leave compilation off")
    fast: nn.Module = torch.compile(ready)  # type: ignore[assignment]  # an OptimizedModule is an nn.Module
    return fast
