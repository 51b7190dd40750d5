"""Averages of a network's weights over a whole run, of which snapshots are kept to rebuild any other (`lengths`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ddim.nets.lengths import gamma_of

LENGTHS = (0.05, 0.10)  # EDM2's two


class Powers:
    """average <- b average + (1 - b) weight after step t = 1, 2, .., b = (1 - 1/t)^(g + 1) (EDM2, eq. 127).

    The first step's b is 0: what the network began with is in none of them.

    Args:
        network: its floating-point parameters are followed, in float32.
        lengths: of the averages, see `length_of`.
        since: steps that were done before the first one followed.

    Raises:
        Refused: a length that no average has.
    """

    def __init__(self, network: nn.Module, lengths: Sequence[float] = LENGTHS, since: int = 0) -> None:
        self.lengths, self.since, self.updates = tuple(lengths), since, 0
        self.gammas = tuple(gamma_of(length) for length in self.lengths)
        own = {n: p.detach().float() for n, p in network.named_parameters() if p.is_floating_point()}
        self.shadows = [{n: p.clone() for n, p in own.items()} for _ in self.lengths]

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of the step just done."""
        self.updates += 1
        weights = dict(network.named_parameters())
        for gamma, shadow in zip(self.gammas, self.shadows, strict=True):
            own = [weights[n].detach().float() for n in shadow]
            torch._foreach_lerp_(list(shadow.values()), own, 1.0 - (1.0 - 1.0 / self.updates) ** (gamma + 1))

    def state_dict(self) -> dict[str, Any]:
        """All that the next step needs."""
        return {
            "lengths": list(self.lengths), "since": self.since, "updates": self.updates, "shadows": self.shadows,
        }  # fmt: skip

    @classmethod
    def of(cls, network: nn.Module, state: Mapping[str, Any]) -> Powers:
        """As they were, for the same network."""
        made = cls(network, state["lengths"], state["since"])
        made.updates = state["updates"]
        for shadow, kept in zip(made.shadows, state["shadows"], strict=True):
            for name, value in shadow.items():
                value.copy_(kept[name])
        return made
