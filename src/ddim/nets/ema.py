"""Exponential moving average of a network's weights: the weights people sample from.

Only parameters are averaged. A schedule is no parameter here, so it cannot be averaged away, and a young
average warms up: with a fixed decay of 0.9999 the first thousands of steps would sample the initial weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ddim.refused import Refused


class Ema:
    """shadow <- d shadow + (1 - d) weight after every step, d = min(decay, (1 + n)/(10 + n)), n updates so far.

    Args:
        network: its floating-point parameters are followed, in float32.
        decay: the final decay, 0 <= decay < 1; 0 follows the weights exactly.

    Raises:
        Refused: a decay outside [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise Refused(f"the EMA decay must be at least 0 and below 1, got {decay}")
        self.decay, self.updates = decay, 0
        self.shadow = {n: p.detach().float().clone() for n, p in network.named_parameters() if p.is_floating_point()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of the step just done."""
        rate = 1.0 - min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.decay else 1.0
        weights = dict(network.named_parameters())
        torch._foreach_lerp_(list(self.shadow.values()), [weights[n].detach().float() for n in self.shadow], rate)
        self.updates += 1

    def copy_to(self, network: nn.Module) -> None:
        """Give the network the averaged weights for good."""
        _copy(self.shadow, dict(network.named_parameters()))

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Inside, the network has the averaged weights; afterwards its own again, bit for bit."""
        weights = dict(network.named_parameters())
        own = {n: weights[n].detach().clone() for n in self.shadow}
        try:
            _copy(self.shadow, weights)
            yield
        finally:
            _copy(own, weights)


@torch.no_grad()
def _copy(source: dict[str, Tensor], target: dict[str, nn.Parameter]) -> None:
    for name, value in source.items():
        target[name].copy_(value)
