"""Networks whose times are a table of sinusoids, given the sinusoid itself while they are probed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ddim.nets import DiffusersNetwork


@contextmanager
def free_time(network: DiffusersNetwork | None) -> Iterator[float | None]:
    """Where the times are a table of sinusoids (as our folders have it), use the sinusoid itself; yields its scale."""
    table = None if network is None else network.time_table
    if network is None or table is None:
        yield None
        return
    unet: Any = network.unet
    from diffusers.models.embeddings import Timesteps

    width = table.embedding_dim
    sinusoid = Timesteps(width, unet.config.flip_sin_to_cos, unet.config.freq_shift)  # type: ignore[no-untyped-call]
    times = torch.arange(len(table.weight), device=table.weight.device)
    scales = [1000.0 / len(table.weight), 1.0]
    fits = [s for s in scales if torch.allclose(sinusoid(times * s), table.weight.float(), atol=1e-4)]
    if not fits:
        yield None
        return
    try:
        unet.time_proj = sinusoid
        yield fits[0]
    finally:
        unet.time_proj = table
