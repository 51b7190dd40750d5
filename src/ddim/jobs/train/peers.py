"""The other processes of one training: stopped together, and not waited for when they are gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ddim.jobs.train.state import TrainState
from ddim.refused import Refused

# gloo has no type of its own for it
GONE = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Connection refused")


def agreed(state: TrainState[Any], stop: bool) -> bool:
    """Whether any process was told to stop: all must leave the loop after the same step."""
    if state.accelerator.num_processes == 1:
        return stop
    votes: torch.Tensor = state.accelerator.reduce(torch.tensor(float(stop), device=state.accelerator.device), "sum")
    return bool(votes > 0)


@contextmanager
def among_peers(run: Path) -> Iterator[None]:
    """Inside, an exchange that fails because another process is gone is told as that.

    Raises:
        Refused: with the way to go on.
    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.distributed.DistError) or any(word in str(error) for word in GONE)):
            raise
        raise Refused(f"another process of this training was lost; go on with `resume` {run}") from None
