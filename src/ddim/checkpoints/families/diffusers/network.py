"""A diffusers `UNet2DModel` from a configuration and a state dict, checked before memory is spent on either."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ddim.checkpoints.families.diffusers.changes import MAX_WIDTH, change
from ddim.checkpoints.families.diffusers.scoreunet import score_unet
from ddim.checkpoints.families.diffusers.transformer import DIT, empty_transformer, placed
from ddim.checkpoints.settings import SHOWN, known_only, whole
from ddim.nets import CHANGES, LucidrainsUnet, ScoreUnet
from ddim.refused import Refused
from ddim.stored import is_number, is_whole

MAX_LEVELS, MAX_LAYERS = 16, 64
FAULTS = (  # whatever diffusers and torch make of settings that describe no network
    TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, LookupError, NameError, AssertionError,
)  # fmt: skip
CHECKED_ELSEWHERE = ("sample_size", "class_embed_type")
REALS = ("mid_block_scale_factor", "freq_shift")  # real numbers whose default is written as a whole one
NULLABLE = ("attention_head_dim", "mid_block_type", "downsample_type", "upsample_type")  # null says something there
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # before diffusers 0.17


def filled_unet(
    config: Mapping[str, Any], state: Mapping[str, Tensor], where: str, weights: str | None = None
) -> nn.Module:
    """The network of that configuration with these weights, float32, in eval mode.

    Args:
        config: UNet2DModel's own names; names that begin with "_" are passed over.
        state: its state dict; attention names of before diffusers 0.17 are understood.
        where: the file of the configuration, for error messages.
        weights: that of the weights, if it is another.

    Raises:
        Refused: an unknown setting, weights that are missing, too many or of another shape; names them.
    """
    network = empty_unet(config, where)
    fill(network, state, weights or where)
    if config.get("_class_name") == DIT:
        placed(network)
    return network


def empty_unet(config: Mapping[str, Any], where: str) -> nn.Module:
    """The network on torch's meta device: shapes without memory."""
    from diffusers import UNet2DModel

    if config.get("_class_name") == LucidrainsUnet.__name__:
        return _lucidrains(config, where)
    if config.get("_class_name") == ScoreUnet.__name__:
        return score_unet(config, where)
    if config.get("_class_name") == DIT:
        return empty_transformer(config, where)
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if not k.startswith("_")}
    defaults = {n: p.default for n, p in inspect.signature(UNet2DModel.__init__).parameters.items() if n != "self"}
    known_only(settings, defaults, where, "setting in the network's config")
    typed(settings, defaults, where)
    if settings.get("class_embed_type") is not None:
        raise Refused(f"{where}: class_embed_type = {settings['class_embed_type']!r} is not supported; labels are")
    widths = settings.get("block_out_channels") or ()
    if len(widths) > MAX_LEVELS:
        raise Refused(f"{where}: {len(widths)} levels; at most {MAX_LEVELS} make sense")
    whole(settings, "layers_per_block", 2, MAX_LAYERS, where=where)
    changes = config.get(CHANGES)
    if changes is not None and not isinstance(changes, Mapping):
        raise Refused(f"{where}: {CHANGES} must hold settings, got {reprlib.repr(changes)}")
    try:
        with torch.device("meta"):
            network = cast(nn.Module, UNet2DModel(**settings))  # type: ignore[no-untyped-call]  # diffusers has no types
        if changes:
            change(network, changes, where)
    except Refused:
        raise
    except FAULTS as error:
        raise Refused(f"{where}: diffusers cannot build this network: {_line(error)}") from None
    return network


def typed(settings: Mapping[str, Any], defaults: Mapping[str, Any], where: str) -> None:
    """diffusers checks no types, and some wrong ones show only when the network is run: each must be its default's."""
    for name, value in settings.items():
        default = defaults[name]
        if name in CHECKED_ELSEWHERE:
            continue
        if isinstance(default, bool):
            right, kind = isinstance(value, bool), "true or false"
        elif isinstance(default, float) or name in REALS:
            right, kind = is_number(value), "a number"
        elif isinstance(default, int) or default is None:
            right, kind = is_whole(value, 0), "a whole number"
        else:
            right, kind = isinstance(value, type(default)), "a list" if isinstance(default, tuple) else "a word"
        optional = default is None or name in NULLABLE
        if not right and not (value is None and optional):
            raise Refused(f"{where}: {name} must be {kind}, got {reprlib.repr(value)}")


def _lucidrains(config: Mapping[str, Any], where: str) -> nn.Module:
    settings: dict[str, Any] = {k: v for k, v in config.items() if not k.startswith("_")}
    mults, full = (settings.get(name, ()) for name in ("dim_mults", "full_attn"))
    if not isinstance(mults, (list, tuple)) or not all(is_whole(m, 1) for m in mults) or len(mults) > MAX_LEVELS:
        raise Refused(f"{where}: dim_mults must be up to {MAX_LEVELS} whole numbers, got {reprlib.repr(mults)}")
    if not isinstance(full, (list, tuple)) or not all(isinstance(f, bool) for f in full):
        raise Refused(f"{where}: full_attn must be a list of true and false, got {reprlib.repr(full)}")
    for name, least in (("dim", 4), ("init_dim", 1), ("heads", 1), ("dim_head", 1), ("mem", 0)):  # 4: its sinusoid
        whole(settings, name, least, MAX_WIDTH, least=least, where=where)
    try:
        with torch.device("meta"):
            return LucidrainsUnet(**settings)
    except FAULTS as error:
        raise Refused(f"{where}: the network's config cannot be built: {_line(error)}") from None


def with_time_table(network: Any, T: int, scale: float) -> nn.Module:
    """A copy whose time embedding is a table: row t - 1 is the sinusoid of (t - 1) * scale, (T, width) float32."""
    config = dict(network.config) | {"time_embedding_type": "learned", "num_train_timesteps": T}
    times = torch.arange(T, dtype=torch.float32) * scale
    state = dict(network.state_dict()) | {"time_proj.weight": network.time_proj(times)}
    return filled_unet(config, state, "the network with a table of times")


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put a state dict into a network on the meta device; every name, shape and kind of number must agree.

    Raises:
        Refused: names that are missing or too many, shapes that differ, flags or whole numbers; the first few of each.
    """
    expected = network.state_dict()
    given = modern_names(state)
    problems = []
    missing = [k for k in expected if k not in given]
    extra = [k for k in given if k not in expected]
    wrong = [k for k in expected if k in given and given[k].shape != expected[k].shape]
    if missing:
        problems.append(f"{len(missing)} missing: {some(missing)}")
    if extra:
        problems.append(f"{len(extra)} not of this network: {some(extra)}")
    if wrong:
        k = wrong[0]
        shapes = f"{tuple(given[k].shape)} where {tuple(expected[k].shape)} is expected"
        problems.append(f"{len(wrong)} of another shape: {k} is {shapes}")
    odd = [k for k in expected if k in given and given[k].is_floating_point() != expected[k].is_floating_point()]
    if odd:
        problems.append(f"{len(odd)} of another kind of number: {odd[0]} is {given[odd[0]].dtype}")
    if problems:
        raise Refused(f"{where} does not hold the weights of its configuration ({'; '.join(problems)})")
    weights = {k: own(given[k]) for k in expected}
    network.load_state_dict(weights, strict=True, assign=True)
    network.eval()


def modern_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The attention weights under today's names; 1x1 convolutions of the oldest files become linear layers."""
    new = {}
    for name, value in state.items():
        head, _, last = name.rpartition(".")
        block, _, part = head.rpartition(".")
        if part in OLD_ATTENTION and ("attentions." in block or block.endswith("attention")):
            name = f"{block}.{OLD_ATTENTION[part]}.{last}"
            value = value[..., 0, 0] if value.ndim == 4 else value
        new[name] = value
    return new


def own(value: Tensor) -> Tensor:
    """A float32 copy that shares nothing with the file it came from; whole numbers stay what they are."""
    value = value.detach()
    return value.to(torch.float32, copy=True).contiguous() if value.is_floating_point() else value.clone()


def some(names: list[str]) -> str:
    """The first few names."""
    return ", ".join(names[:SHOWN]) + (f", and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
