"""Convolutions whose weights are kept in oneDNN's own order, so that no call reorders them again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PackedConv2d(nn.Conv2d):
    """A convolution with its weight also in oneDNN's blocked order, so that no call of that shape reorders it again.

    Where gradients are wanted, or the input is of another type or device, it is a plain convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        grad = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        if grad or x.dtype != self.weight.dtype or x.device.type != "cpu" or x.ndim != 4 or len(x) == 0:
            return super().forward(x)
        where = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
        seen = (x.shape, self.weight.data_ptr(), None if self.weight.is_inference() else self.weight._version)
        kept = self.__dict__.get("_packed")  # one value, read and written at once: other threads may run it too
        if kept is None or kept[0] != seen:  # the first call of this shape, or the weight was changed in place
            plain = self.weight.detach().to_mkldnn()
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # torch's stub lacks the size
            kept = self.__dict__["_packed"] = seen, reorder(plain, *where, list(x.shape))
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(x, kept[1], self.bias, *where, "none", [], "")
        return made

    def __getstate__(self) -> dict[str, Any]:
        """Without oneDNN's own copy, which can be neither copied nor pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_packed"}


def why_not_packed(device: torch.device, precision: str) -> str | None:
    """What keeps convolution weights from being packed there, or None."""
    if device.type != "cpu" or precision not in ("fp32", "bf16"):
        return f"only fp32 and bf16 on a CPU have packed weights, not {precision} on {device.type}"
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")):
        return "this build of torch has no oneDNN"
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "oneDNN has no bf16 on this CPU"
    return None


def packable(network: nn.Module) -> list[nn.Conv2d]:
    """The plain convolutions; a subclass, or one that is hooked, may do something else and is left alone."""
    found = [m for m in network.modules() if type(m) is nn.Conv2d and not (m._forward_hooks or m._forward_pre_hooks)]
    fine = (torch.float32, torch.bfloat16)
    return [
        m for m in found if m.padding_mode == "zeros" and m.padding not in ("same", "valid") and m.weight.dtype in fine
    ]
