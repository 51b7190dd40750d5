"""The option of commands whose batches can go to a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import ddim
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.jobs import Over, Share


@dataclass(frozen=True, kw_only=True)
class OnCluster:
    """Where batches go."""

    on: str | None = None
    """ray, a cluster on this machine, or ray://HOST:PORT: batches go to its workers (extra: ddim[ray])."""

    def over(self, share: Share, model: ddim.Model) -> Over:
        """`map`, or the same on the cluster."""
        if self.on is not None and share.world > 1:
            raise Refused("--on divides the work among workers: start one process, without torchrun")
        return map if self.on is None else ddim.jobs.on_ray(self.on, gpu=model.device.type == "cuda")
