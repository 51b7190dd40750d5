"""What a network call costs in arithmetic: a figure that no other job on the machine changes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def operations(call: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and matrix products in a call, as torch counts them.

    Attention is run as the plain products that it is: its fused kernels are not counted on every device.
    """
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
