"""The autoencoder of a diffusers folder, in `vae` or `vqvae` beside the network: read, checked, written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ddim.checkpoints.families.diffusers.network import FAULTS, MAX_LAYERS, MAX_LEVELS, fill, typed
from ddim.checkpoints.families.diffusers.weights import STEM, refuse_others, weights_of
from ddim.checkpoints.settings import MAX_SIDE, choice, known_only, whole
from ddim.files import read_json, sha256, write_json, write_tensors
from ddim.nets import Autoencoder
from ddim.refused import Refused
from ddim.stored import is_number, is_whole

PLACES, CONFIG = ("vae", "vqvae"), "config.json"
KINDS = ("AutoencoderKL", "AutoencoderTiny", "VQModel")
REALS = ("scaling_factor", "shift_factor")
BY_CHANNEL = ("latents_mean", "latents_std")
OPTIONAL = ("vq_embed_dim",)
BLOCKS = ("num_encoder_blocks", "num_decoder_blocks")
LISTS = ("block_out_channels", "down_block_types", "up_block_types", "encoder_block_out_channels",
         "decoder_block_out_channels", *BLOCKS)  # fmt: skip


def autoencoder_in(
    folder: Path, shape: tuple[int, int, int], facts: Mapping[str, Any], notes: list[str]
) -> Autoencoder | None:
    """The autoencoder of a pipeline folder; None where it is one of pixels.

    Args:
        shape: (C, H, W) of the latents that the network walks in.
        facts: what ddim.json says; the hash of the autoencoder's weights among it.

    Raises:
        Refused: it cannot be built, or its latents are not those of the network; or it is missing.
    """
    found = [folder / name for name in PLACES if (folder / name).is_dir()]
    if not found:
        if facts.get("autoencoder") is not None:
            raise Refused(f"{folder} walks in the latents of an autoencoder that is missing: copy the whole folder")
        return None
    if len(found) > 1:
        raise Refused(f"{folder} has {found[0].name} and {found[1].name}: leave one autoencoder")
    made = read_autoencoder(found[0], facts.get("autoencoder"), notes)
    try:
        made.image_shape(shape)
    except Refused as error:
        raise Refused(f"{found[0] / CONFIG}: {error}") from None
    return made


def read_autoencoder(place: Path, told: Any, notes: list[str]) -> Autoencoder:
    """The autoencoder of a folder of its own.

    Args:
        told: the hash its weights must have, or None.

    Raises:
        Refused: it cannot be built, or its weights are damaged or others.
    """
    file = place / CONFIG
    if not file.is_file():
        raise Refused(f"{place} has no {CONFIG}, which says what the autoencoder is")
    config = read_json(file)
    module = empty_autoencoder(config, str(file))
    state, digest, weights = weights_of(place)
    refuse_others(told, digest, weights)
    fill(module, state, str(weights))
    broken = [name for name, value in module.state_dict().items() if not bool(value.isfinite().all())]
    if broken:
        raise Refused(f"{weights}: {len(broken)} weights hold NaN or infinity, first {broken[0]}: the file is damaged")
    try:
        made = Autoencoder(module, digest).eval()
    except Refused as error:
        raise Refused(f"{file}: {error}") from None
    if config.get("scaling_factor") is None:
        notes.append(f"the autoencoder says no scaling_factor: {float(made.scale.flatten()[0]):g}, as diffusers has it")
    return made


def empty_autoencoder(config: Mapping[str, Any], where: str) -> nn.Module:
    """The module on torch's meta device: shapes without memory.

    Raises:
        Refused: another class, an unknown setting, one that makes no autoencoder.
    """
    import diffusers

    kind: Any = getattr(diffusers, choice(config, "_class_name", "", KINDS, where=where))
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if not k.startswith("_")}
    defaults = {n: p.default for n, p in inspect.signature(kind.__init__).parameters.items() if n != "self"}
    if "num_encoder_blocks" in defaults:  # AutoencoderTiny keeps it a second time, under its siblings' name
        settings.pop("block_out_channels", None)
    known_only(settings, defaults, where, "setting in the autoencoder's config")
    _checked(settings, defaults, where)
    try:
        with torch.device("meta"):
            return cast(nn.Module, kind(**settings))
    except FAULTS as error:
        line = " ".join(str(error).split())[:200]
        raise Refused(f"{where}: diffusers cannot build this autoencoder: {line}") from None


def _checked(settings: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> None:
    own = (*REALS, *BY_CHANNEL, *OPTIONAL, "sample_size")
    plain = {k: v for k, v in settings.items() if k not in own}
    typed(plain, {k: v for k, v in defaults.items() if k in plain}, where)
    for name in LISTS:
        value = plain.get(name)
        if value is not None and not 0 < len(value) <= MAX_LEVELS:
            raise Refused(f"{where}: {name} must hold 1 to {MAX_LEVELS} entries, got {len(value)}")
        numbers = name in BLOCKS or name.endswith("channels")
        if value is not None and numbers and not all(is_whole(v, 1, MAX_SIDE) for v in value):
            raise Refused(f"{where}: {name} must hold whole numbers from 1, got {str(value)[:80]}")
        if value is not None and name in BLOCKS and sum(value) > MAX_LEVELS * MAX_LAYERS:
            raise Refused(f"{where}: {name} asks for {sum(value)} blocks; at most {MAX_LEVELS * MAX_LAYERS} make sense")
    for name in ("layers_per_block", "upsampling_scaling_factor"):
        whole(settings, name, 1, MAX_LAYERS, where=where)
    for name in ("in_channels", "out_channels", "latent_channels"):
        whole(settings, name, 3, MAX_SIDE, where=where)
    if settings.get("vq_embed_dim") is not None:
        whole(settings, "vq_embed_dim", 3, MAX_SIDE, where=where)
    for name in REALS:
        if settings.get(name) is not None and not is_number(settings[name]):
            raise Refused(f"{where}: {name} must be a number, got {str(settings[name])[:80]}")
    if settings.get("scaling_factor") is not None and settings["scaling_factor"] <= 0:
        raise Refused(f"{where}: scaling_factor must be above 0, got {settings['scaling_factor']:g}")
    for name in BY_CHANNEL:
        value = settings.get(name)
        if value is not None and not (isinstance(value, tuple) and all(is_number(v) for v in value)):
            raise Refused(f"{where}: {name} must be a list of numbers, got {str(value)[:80]}")


def write_autoencoder(place: Path, made: Autoencoder, dtype: torch.dtype | None = None) -> str:
    """Put config.json and the weights, as `dtype` if told, into a folder; returns the hash of the weights' file."""
    import diffusers

    place.mkdir(exist_ok=True)
    file = place / f"{STEM}.safetensors"
    state = made.module.state_dict()
    write_tensors(file, {k: v if dtype is None else v.to(dtype) for k, v in state.items()}, {"format": "pt"})
    version = {"_class_name": made.kind, "_diffusers_version": diffusers.__version__}
    write_json(place / CONFIG, version | made.config)
    return sha256(file)
