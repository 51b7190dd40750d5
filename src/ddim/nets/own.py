"""Anybody's module as network(x, t, label, ..) -> tensor, the form in which a checkpoint keeps its network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ddim.nets.unet import DiffusersNetwork


class OwnNetwork(nn.Module):
    """A module of the user's own.

    Args:
        module: module(x, t), or module(x, t, label) where it is conditional; other conditions come by name. It returns
            a tensor or has it as `.sample`.
        conditional: whether it takes classes.
        null_label: the label that means "any class", passed where none is given; None passes None on.
    """

    def __init__(self, module: nn.Module, conditional: bool, null_label: int | None = None) -> None:
        super().__init__()
        self.module, self.conditional, self.null_label = module, conditional, null_label

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None, **conditions: Any) -> Tensor:
        """x (B, *), t (B,), label int64 (B,) or None, whatever else the module takes -> (B, *)."""
        if label is None and self.null_label is not None:
            label = torch.full((len(x),), self.null_label, dtype=torch.int64, device=x.device)
        if not self.conditional and label is not None:  # a condition that happens to be called so
            conditions["label"] = label
        said: Any = self.module(x, t, label, **conditions) if self.conditional else self.module(x, t, **conditions)
        out: Tensor = said if isinstance(said, Tensor) else said.sample
        return out


def adapted(module: nn.Module, conditional: bool, null_label: int | None = None) -> OwnNetwork | DiffusersNetwork:
    """The adapter for a module: diffusers' own `UNet2DModel` has its own, for which there are model folders."""
    kind = type(module)
    if kind.__name__ == "UNet2DModel" and kind.__module__.startswith("diffusers."):
        return DiffusersNetwork(module, null_label)
    return OwnNetwork(module, conditional, null_label)
