"""Anybody's module as network(x, t, label) -> tensor, the form in which a checkpoint keeps its network."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor, nn


class OwnNetwork(nn.Module):
    """A module of the user's own.

    Args:
        module: module(x, t), or module(x, t, label) where it is conditional; returns a tensor or has it as `.sample`.
        conditional: whether it takes labels.
        null_label: the label that means "any class", passed where none is given; None passes None on.
    """

    def __init__(self, module: nn.Module, conditional: bool, null_label: int | None = None) -> None:
        super().__init__()
        self.module, self.conditional, self.null_label = module, conditional, null_label

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), t (B,), label int64 (B,) or None -> (B, C, H, W)."""
        if label is None and self.null_label is not None:
            label = torch.full((len(x),), self.null_label, dtype=torch.int64, device=x.device)
        said: Any = self.module(x, t, label) if self.conditional else self.module(x, t)
        out: Tensor = said if isinstance(said, Tensor) else said.sample
        return out

    def weights_hash(self) -> str:
        """sha256 of the weights, in the order of their names."""
        found = hashlib.sha256()
        for name, value in sorted(self.module.state_dict().items()):
            found.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
            found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return found.hexdigest()
