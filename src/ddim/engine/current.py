"""A network made ready to run that is never older than the network it was made from.

What is made ready holds copies: weights in another number format or order, frozen into compiled code. Weights can be
changed behind them in ways nothing counts (`p.data`, new Parameters), so the network itself is looked at: once a walk,
or at every call that is no part of one (docs/engine.md says what that costs).
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ddim.engine.prepare import prepared


class Seen:
    """A network as it was when it was looked at: its modules, settings and hooks, and every number of its weights."""

    def __init__(self, network: nn.Module) -> None:
        self._parts = list(_parts(network))  # kept, so that none can come back as another under the same id
        self._tensors = [part for part in self._parts if isinstance(part, Tensor)]
        self._places = [t.data_ptr() for t in self._tensors]
        own = [t for t in self._tensors if t.device.type == "cpu"]
        self._raw = [_bytes(t) for t in own if t.is_contiguous()]  # views: what lies there whenever they are read
        self._odd = [t for t in own if not t.is_contiguous()]
        self.sums = self._sums()

    def is_still(self, network: nn.Module) -> bool:
        """Whether nothing has changed. Weights that moved count as changed."""
        parts = list(_parts(network))
        if len(parts) != len(self._parts) or not all(map(operator.is_, parts, self._parts)):
            return False
        return [t.data_ptr() for t in self._tensors] == self._places and self._sums() == self.sums

    def _sums(self) -> list[int]:
        """A sum of each tensor in which every number and its place count."""
        away = [_weighted(t) for t in self._tensors if t.device.type != "cpu"]
        here = [*map(zlib.crc32, self._raw), *(zlib.crc32(_bytes(t)) for t in self._odd)]
        return [*here, *(torch.stack(away).tolist() if away else ())]  # one transfer for all


def weight_sums(network: nn.Module) -> list[int]:
    """What tells these weights from others: a sum of each tensor in which every number and its place count."""
    return Seen(network).sums


class Current(nn.Module):
    """A network in that precision, made ready anew whenever it has changed; see `prepared`.

    Autocast around a call does not reach inside: the precision is the one asked for.
    """

    def __init__(self, network: nn.Module, precision: str, compiled: bool = False) -> None:
        super().__init__()
        self._made_of = (network, precision, compiled)  # in a tuple: its weights are not this module's own
        self._made = self._make()

    def now(self) -> nn.Module:
        """The network of this moment, for a whole walk: it looks at nothing any more."""
        network, (seen, ready) = self._made_of[0], self._made
        if seen is None:
            if any(m.training for m in network.modules()):
                network.eval()
        elif not seen.is_still(network):
            self._made = _, ready = self._make()
        return ready

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.now()(*args, **kwargs)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Those it runs with."""
        return self._made[1].parameters(recurse)

    def _make(self) -> tuple[Seen | None, nn.Module]:
        """What was seen, None where the network runs itself, and what runs."""
        network, precision, compiled = self._made_of
        seen = Seen(network)
        ready = prepared(network, precision, compiled=compiled)
        return None if ready is network else seen, Undisturbed(ready)

    def __reduce__(self) -> Any:
        return type(self), self._made_of


class Undisturbed(nn.Module):
    """A network that autocast around it does not reach."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        with undisturbed(x.device):
            return self.network(x, *args, **kwargs)


def undisturbed(device: torch.device) -> AbstractContextManager[Any]:
    """Inside, no autocast around changes the arithmetic on that device."""
    on = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()


def _parts(network: nn.Module) -> Iterator[Any]:
    yield network
    inside = vars(network)
    for held in ("_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks"):
        if inside[held]:
            yield from inside[held].values()
    yield from [value for name, value in inside.items() if name[0] != "_" and name != "training"]
    for module in inside["_modules"].values():
        if module is not None:
            yield from _parts(module)


def _bytes(tensor: Tensor) -> memoryview:
    raw: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return memoryview(raw)


def _weighted(tensor: Tensor) -> Tensor:
    """sum_i x_i (2 i c + 1) modulo 2^64 over its bytes in words, where the tensor lies."""
    word = torch.int32 if tensor.element_size() % 4 == 0 else torch.uint8
    words = tensor.detach().contiguous().reshape(-1).view(word).long()
    places = torch.arange(len(words), device=words.device) * 0x1E3779B97F4A7C16 + 1
    return (words * places).sum()
