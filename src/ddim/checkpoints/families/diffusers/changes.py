"""What no `UNet2DModel` configuration can say of a network, done to one that diffusers built.

It stands in the network's config under `CHANGES`; such a folder is ddim's own, as diffusers would pass over it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ddim.checkpoints.settings import known_only, whole
from ddim.nets import CHANGES
from ddim.refused import Refused

MAX_WIDTH = 65536
NAMES = ("attention_heads", "time_channels", "first_channels")


def change(network: Any, changes: Mapping[str, Any], where: str) -> None:
    """Change a network on torch's meta device.

    Args:
        changes: attention_heads: one head count at unequal widths; time_channels: width of the time sinusoid (or of
            the table of times in its place), where that is not the first level's; first_channels: channels after the
            first convolution, likewise.

    Raises:
        Refused: an unknown change, or one this network cannot have.
    """
    known_only(changes, NAMES, where, f"setting in {CHANGES}")
    heads, width, first = (
        None if changes.get(name) is None else whole(changes, name, 1, MAX_WIDTH, where=f"{where}: {CHANGES}")
        for name in NAMES
    )
    with torch.device("meta"):
        if heads is not None:
            _share(network, heads, where)
        if width is not None:
            _widen_time(network, width, where)
        if first is not None:
            _begin(network, first)
    network.register_to_config(**{CHANGES: dict(changes)})


def _share(network: Any, heads: int, where: str) -> None:
    from diffusers.models.attention_processor import Attention

    for module in network.modules():
        if isinstance(module, Attention):
            if module.inner_dim % heads:
                raise Refused(f"{where}: {module.inner_dim} channels cannot be shared by {heads} attention heads")
            module.heads, module.scale = heads, (module.inner_dim // heads) ** -0.5


def _widen_time(network: Any, width: int, where: str) -> None:
    kind = network.config.time_embedding_type
    if kind == "learned":
        network.time_proj = nn.Embedding(network.time_proj.num_embeddings, width)
    elif kind == "positional":
        network.time_proj.num_channels = width
    else:
        raise Refused(f"{where}: {CHANGES}: time_channels is for sinusoids and tables of times, not for {kind} ones")
    network.time_embedding.linear_1 = nn.Linear(width, network.time_embedding.linear_1.out_features)


def _begin(network: Any, channels: int) -> None:
    """The first convolution's output goes into the first block, and at the very end into the last one as its skip."""
    old = network.conv_in
    network.conv_in = nn.Conv2d(old.in_channels, channels, old.kernel_size, padding=old.padding)
    first, last = network.down_blocks[0].resnets, network.up_blocks[-1].resnets
    last[-1] = _taking(last[-1], last[-1].in_channels - old.out_channels + channels)
    first[0] = _taking(first[0], channels)


def _taking(block: Any, channels: int) -> nn.Module:
    """The same block for another number of channels."""
    from diffusers.models.resnet import ResnetBlock2D

    new = ResnetBlock2D(
        in_channels=channels, out_channels=block.out_channels, temb_channels=block.time_emb_proj.in_features,
        groups=block.norm1.num_groups, eps=block.norm1.eps, dropout=block.dropout.p,
        time_embedding_norm=block.time_embedding_norm, output_scale_factor=block.output_scale_factor,
    )  # fmt: skip
    new.nonlinearity = block.nonlinearity
    return new
