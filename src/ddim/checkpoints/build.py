"""A diffusers `UNet2DModel` from a configuration and a state dict, checked before memory is spent on either."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from ddim.checkpoints import lucidrains_net

MAX_LEVELS, MAX_LAYERS = 16, 64
CHANGES = "_ddim"  # key of config.json for `_change`; begins with "_" as diffusers' own remarks do
SHOWN = 6  # names in one error line
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # before diffusers 0.17


def unet(config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> nn.Module:
    """The network of that configuration with these weights, float32, in eval mode.

    Args:
        config: UNet2DModel's own names; names that begin with "_" are passed over.
        state: its state dict; attention names of before diffusers 0.17 are understood.
        where: the file, for error messages.

    Raises:
        ValueError: an unknown setting, weights that are missing, too many or of another shape; names them.
    """
    network = empty_unet(config, where)
    fill(network, state, where)
    return network


def empty_unet(config: Mapping[str, Any], where: str) -> nn.Module:
    """The network on torch's meta device: shapes without memory."""
    from diffusers import UNet2DModel

    if config.get("_class_name") == lucidrains_net.CLASS:
        return _lucidrains(config, where)
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if not k.startswith("_")}
    known = set(inspect.signature(UNet2DModel.__init__).parameters) - {"self"}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ValueError(f"{where}: the network's config has settings of unknown meaning: {', '.join(unknown)}")
    if settings.get("class_embed_type") is not None:
        raise ValueError(f"{where}: class_embed_type = {settings['class_embed_type']!r} is not supported; labels are")
    if len(settings.get("block_out_channels", ())) > MAX_LEVELS:
        raise ValueError(f"{where}: {len(settings['block_out_channels'])} levels; at most {MAX_LEVELS} make sense")
    layers = settings.get("layers_per_block", 2)
    if not isinstance(layers, int) or not 1 <= layers <= MAX_LAYERS:
        raise ValueError(f"{where}: layers_per_block = {layers!r} is not a whole number from 1 to {MAX_LAYERS}")
    try:
        with torch.device("meta"):
            network = cast(nn.Module, UNet2DModel(**settings))  # type: ignore[no-untyped-call]  # diffusers has no types
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{where}: diffusers cannot build this network: {_line(error)}") from None
    changes = dict(config.get(CHANGES) or {})
    if changes:
        _change(network, changes, where)
    return network


def _lucidrains(config: Mapping[str, Any], where: str) -> nn.Module:
    settings: dict[str, Any] = {k: v for k, v in config.items() if not k.startswith("_")}
    if len(settings.get("dim_mults", ())) > MAX_LEVELS:
        raise ValueError(f"{where}: {len(settings['dim_mults'])} levels; at most {MAX_LEVELS} make sense")
    try:
        with torch.device("meta"):
            return lucidrains_net.LucidrainsUnet(**settings)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise ValueError(f"{where}: the network's config cannot be built: {_line(error)}") from None


def _change(network: Any, changes: Mapping[str, Any], where: str) -> None:
    """What no UNet2DModel configuration can say: one head count at unequal widths, a wider time sinusoid."""
    from diffusers.models.attention_processor import Attention

    unknown = sorted(set(changes) - {"attention_heads", "time_channels"})
    if unknown:
        raise ValueError(f"{where}: {CHANGES} names {', '.join(unknown)}, which this version does not know")
    heads = changes.get("attention_heads")
    for module in network.modules():
        if isinstance(module, Attention) and heads is not None:
            if module.inner_dim % heads:
                raise ValueError(f"{where}: {module.inner_dim} channels cannot be shared by {heads} attention heads")
            module.heads, module.scale = heads, (module.inner_dim // heads) ** -0.5
    width = changes.get("time_channels")
    if width is not None:
        network.time_proj.num_channels = width
        old = network.time_embedding.linear_1
        network.time_embedding.linear_1 = nn.Linear(width, old.out_features, device="meta")
    network.register_to_config(**{CHANGES: dict(changes)})


def with_time_table(network: Any, T: int, scale: float) -> nn.Module:
    """A copy whose time embedding is a table: row t - 1 is the sinusoid of (t - 1) * scale, (T, width) float32."""
    config = dict(network.config) | {"time_embedding_type": "learned", "num_train_timesteps": T}
    times = torch.arange(T, dtype=torch.float32) * scale
    state = dict(network.state_dict()) | {"time_proj.weight": network.time_proj(times)}
    return unet(config, state, "the network with a table of times")


def fill(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put a state dict into a network on the meta device; every name and shape must agree.

    Raises:
        ValueError: names that are missing or too many, shapes that differ; the first few of each.
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
    if problems:
        raise ValueError(f"{where} does not hold the weights of its configuration ({'; '.join(problems)})")
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
