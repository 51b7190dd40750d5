"""Moving weights from a peer's names to diffusers' names, with an account of what is missing and left over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddim.checkpoints.families.diffusers import some
from ddim.refused import Refused


class Translation:
    """A new state dict under construction.

    Args:
        state: the peer's, name -> tensor.
        where: the file, for messages.
    """

    def __init__(self, state: Mapping[str, Tensor], where: str) -> None:
        self.state, self.where = state, where
        self.new: dict[str, Tensor] = {}
        self.used: set[str] = set()
        self.missing: list[str] = []

    def take(self, name: str) -> Tensor | None:
        """The peer's tensor of that name; noted as missing where there is none."""
        self.used.add(name)
        if name not in self.state:
            self.missing.append(name)
            return None
        return self.state[name].detach()

    def move(self, new: str, old: str) -> None:
        """weight and bias of one layer."""
        for part in ("weight", "bias"):
            value = self.take(f"{old}.{part}")
            if value is not None:
                self.new[f"{new}.{part}"] = value

    def linear(self, new: str, old: str) -> None:
        """A 1x1 convolution as a linear layer."""
        self.move(new, old)
        self._flatten(new)

    def qkv(self, new: str, old: str, heads: int, *, by_head: bool) -> None:
        """One layer of 3C outputs as to_q, to_k, to_v of C each.

        by_head: rows run head by head, each q then k then v (OpenAI's legacy order); else all q, all k, all v.
        """
        for part in ("weight", "bias"):
            value = self.take(f"{old}.{part}")
            if value is None:
                continue
            rows = value.flatten(1) if part == "weight" else value
            if len(rows) % (3 * heads):
                raise Refused(f"{self.where}: {old} has {len(rows)} rows, which {heads} heads cannot share")
            if by_head:
                split = rows.reshape(heads, 3, -1, *rows.shape[1:]).unbind(1)
                pieces = [p.flatten(0, 1) for p in split]
            else:
                pieces = list(rows.chunk(3))
            for name, piece in zip(("to_q", "to_k", "to_v"), pieces, strict=True):
                self.new[f"{new}.{name}.{part}"] = piece

    def _flatten(self, new: str) -> None:
        weight = self.new.get(f"{new}.weight")
        if weight is not None and weight.ndim > 2:
            self.new[f"{new}.weight"] = weight.flatten(1)

    def pool(self, new: str, channels: int, first: int) -> None:
        """Average pooling over 2x2 as a 3x3 convolution of stride 2; `first` is its first row that counts."""
        kernel = torch.zeros(channels, channels, 3, 3)
        index = torch.arange(channels)
        for i in (first, first + 1):
            for j in (first, first + 1):
                kernel[index, index, i, j] = 0.25
        self.new[f"{new}.weight"], self.new[f"{new}.bias"] = kernel, torch.zeros(channels)

    def identity(self, new: str, channels: int) -> None:
        """A 3x3 convolution that changes nothing (after nearest-neighbour enlarging without one)."""
        kernel = torch.zeros(channels, channels, 3, 3)
        index = torch.arange(channels)
        kernel[index, index, 1, 1] = 1.0
        self.new[f"{new}.weight"], self.new[f"{new}.bias"] = kernel, torch.zeros(channels)

    def finish(self, kind: str) -> dict[str, Tensor]:
        """The new state dict.

        Raises:
            Refused: names that are missing or were never asked for; the first few of each, in one line.
        """
        left = [k for k in self.state if k not in self.used]
        problems = []
        if self.missing:
            problems.append(f"{len(self.missing)} missing: {some(self.missing)}")
        if left:
            problems.append(f"{len(left)} not of this layout: {some(left)}")
        if problems:
            raise Refused(f"{self.where} is not a whole {kind} network ({'; '.join(problems)})")
        return self.new


def state_dict(value: Any, where: str) -> dict[str, Tensor]:
    """value as name -> tensor, DataParallel's "module." taken off.

    Raises:
        Refused: not a dict of tensors.
    """
    if not isinstance(value, Mapping) or not value:
        raise Refused(f"{where}: a state dict was expected, found {type(value).__name__}")
    odd = [str(k) for k, v in value.items() if not isinstance(v, Tensor) or not isinstance(k, str)]
    if odd:
        raise Refused(f"{where}: a state dict holds tensors only, but these are none: {some(odd)}")
    if all(k.startswith("module.") for k in value):
        return {k.removeprefix("module."): v for k, v in value.items()}
    return dict(value)


def sized(state: Mapping[str, Tensor], name: str, axis: int, where: str, kind: str) -> int:
    """The length of one axis of one tensor.

    Raises:
        Refused: no such tensor, or of too few axes.
    """
    if name not in state:
        raise Refused(f"{where} is not a whole {kind} network (1 missing: {name})")
    if state[name].ndim <= axis:
        raise Refused(f"{where}: {name} has shape {tuple(state[name].shape)}, not that of a {kind} network")
    return int(state[name].shape[axis])
