"""Where the network runs and in which numbers: a device and a precision by name, "auto" as the hardware has it."""

from __future__ import annotations

import contextlib
import os
import reprlib
from typing import Any, Literal

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ddim.refused import Refused

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; "auto" is the accelerator torch sees, else the CPU.

    Of several, each process that torchrun started takes the one of its LOCAL_RANK.

    Raises:
        Refused: a device this machine does not have.
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        rank, count = os.environ.get("LOCAL_RANK", ""), torch.accelerator.device_count() if found else 0
        if found and count > 1 and rank.isdecimal():
            return torch.device(found.type, int(rank) % count)
        return found or torch.device("cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError, ImportError, AttributeError, NotImplementedError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Refused(f"device {reprlib.repr(str(device))} cannot be used here: {reason}") from None
    if picked.type == "meta":
        raise Refused("device meta holds no numbers, so nothing can be computed there; choose cpu, cuda, ... or auto")
    return picked


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is done in hardware: AVX512-BF16 or AMX on a CPU, a GPU that says so."""
    if device.type == "cpu":
        if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
            return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return bool({"avx512_bf16", "amx_bf16"} & {k for k, v in torch.cpu.get_capabilities().items() if v})
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def pick_precision(precision: str, device: torch.device) -> str:
    """The precision of that name; "auto" is bf16 where the hardware has it, else fp32.

    Raises:
        Refused: an unknown precision.
    """
    if precision == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if precision not in DTYPES:
        raise Refused(f"precision is auto, {', '.join(DTYPES)}; got {precision!r}")
    return precision


def training_attention(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """How attention runs where gradients follow: as plain matrix products on a CPU, torch's own choice elsewhere.

    The backward pass of torch's fused CPU kernel costs a sixth of a whole step at 49 tokens (docs/engine.md).
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()
