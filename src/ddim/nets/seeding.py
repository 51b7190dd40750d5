"""The one place that seeds torch's global generators: initialisers and dropout layers take no other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ddim.process import generator


@contextmanager
def torch_randomness(seed: int, purpose: str, step: int = 0) -> Iterator[None]:
    """Inside, torch's own generators are a function of (seed, purpose, step); outside they are as they were.

    Initialisers and dropout layers draw from torch's global generators and take no other.
    """
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(int(generator(seed, purpose, step).integers(2**63)))
        yield
