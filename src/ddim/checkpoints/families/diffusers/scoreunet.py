"""The configuration of a `ScoreUnet`, checked before memory is spent on it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ddim.checkpoints.families.diffusers.changes import MAX_WIDTH
from ddim.checkpoints.settings import MAX_SIDE, choice, fraction, known_only, whole
from ddim.nets import ScoreUnet
from ddim.refused import Refused
from ddim.stored import is_whole

MOST = 64  # entries of a list, and blocks a level
CHOICES = {
    "flavour": ("song", "adm"), "embedding_type": ("positional", "fourier"), "decoder_type": ("standard", "skip"),
    "encoder_type": ("standard", "skip", "residual"),
}  # fmt: skip
WHOLES = {
    "sample_size": (1, MAX_SIDE), "in_channels": (1, MAX_SIDE), "out_channels": (1, MAX_SIDE), "num_blocks": (1, MOST),
    "model_channels": (4, MAX_WIDTH), "channel_mult_emb": (1, MOST), "channel_mult_noise": (1, MOST),
    "augment_dim": (0, MAX_WIDTH),
}  # fmt: skip
LISTS = {"channel_mult": 1, "attn_resolutions": 1, "resample_filter": 0}


def score_unet(config: Mapping[str, Any], where: str) -> nn.Module:
    """The network on torch's meta device: shapes without memory.

    Raises:
        Refused: a setting that is unknown, missing, or makes no network.
    """
    settings = {k: v for k, v in config.items() if not k.startswith("_")}
    known = {n: p.default for n, p in inspect.signature(ScoreUnet.__init__).parameters.items() if n != "self"}
    known_only(settings, known, where, "setting in the network's config")
    missing = [name for name, default in known.items() if default is inspect.Parameter.empty and name not in settings]
    if missing:
        raise Refused(f"{where}: the network's config lacks {', '.join(missing)}")
    full = {name: settings.get(name, default) for name, default in known.items()}
    for name, (least, most) in WHOLES.items():
        whole(full, name, least, most, least=least, where=where)
    for name, allowed in CHOICES.items():
        choice(full, name, allowed[0], allowed, where=where)
    for name, least in LISTS.items():
        value = full[name]
        if (
            not isinstance(value, list | tuple)
            or len(value) > MOST
            or not all(is_whole(n, least, MAX_SIDE) for n in value)
        ):
            raise Refused(f"{where}: {name} must be up to {MOST} whole numbers from {least}, got {str(value)[:80]}")
    fraction(full, "dropout", where=where)
    if full["num_class_embeds"] is not None:
        whole(full, "num_class_embeds", 2, least=2, where=where)
    levels = len(full["channel_mult"])
    if (
        not levels
        or full["sample_size"] % 2 ** (levels - 1)
        or full["model_channels"] % 4
        or not any(full["resample_filter"])
    ):
        raise Refused(
            f"{where}: {levels} levels of width {full['model_channels']} make no network of {full['sample_size']}"
        )
    with torch.device("meta"):
        return ScoreUnet(**full)
