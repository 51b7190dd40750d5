"""How the network is run: device and precision. The maths around it keeps the precision of x."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}


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


def prepared(network: nn.Module, precision: str = "fp32") -> nn.Module:
    """The network, run in that precision. fp64 converts the weights for good; bf16/fp16 run under autocast.

    Raises:
        ValueError: an unknown precision.
    """
    if precision == "auto":
        precision = "fp32"
    if precision not in PRECISIONS:
        raise ValueError(f"precision is auto, {', '.join(PRECISIONS)}; got {precision!r}")
    if precision in ("fp32", "fp64"):
        return network.to(PRECISIONS[precision])
    return _Autocast(network, PRECISIONS[precision])


class _Autocast(nn.Module):
    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        with torch.autocast(x.device.type, self.dtype):
            out: Tensor = self.network(x, t, **cond)
        return out
