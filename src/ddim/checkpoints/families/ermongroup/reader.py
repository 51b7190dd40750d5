"""ermongroup/ddim (and pesser/pytorch_diffusion, ho-style networks of the same names) as a `UNet2DModel`.

Facts of that network: GroupNorm(32) with eps 1e-6; sine before cosine, divisor half - 1, float index t;
one attention head; downsampling pads right and bottom only; the EMA is the last element of the training list.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddim.checkpoints.families.parts import Parts
from ddim.checkpoints.families.sides import doubted, listed, refuse_misfit, sides_of
from ddim.checkpoints.families.translate import Translation, sized, state_dict
from ddim.checkpoints.settings import (
    MAX_SIDE,
    agree,
    choice,
    flag,
    fraction,
    known_only,
    number,
    section,
    whole,
)
from ddim.process import Schedule
from ddim.refused import Refused
from ddim.stored import is_whole

KIND = "ermongroup"
ENDS = (
    ("conv_in", "conv_in"), ("time_embedding.linear_1", "temb.dense.0"), ("time_embedding.linear_2", "temb.dense.1"),
    ("conv_norm_out", "norm_out"), ("conv_out", "conv_out"),
)  # fmt: skip
KNOWN = {  # what its YAML files (and those of the programs grown from it) have; what is not read here changes no image
    "data": (
        "dataset", "category", "image_size", "channels", "logit_transform", "uniform_dequantization",
        "gaussian_dequantization", "random_flip", "rescaled", "num_workers", "out_of_dist",
    ),
    "model": (
        "type", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks", "attn_resolutions", "dropout", "var_type",
        "ema_rate", "ema", "resamp_with_conv",
    ),
    "diffusion": ("beta_schedule", "beta_start", "beta_end", "num_diffusion_timesteps"),
}  # fmt: skip
SECTIONS = (*KNOWN, "training", "sampling", "optim")  # how it was trained and how it sampled: passed over whole
PUBLISHED = (16,)  # where every published network has its attention
SIDES = {4: 32, 5: 64, 6: 256}  # their images by levels: CIFAR-10, CelebA, LSUN
SCHEDULES = ("linear", "quad", "const", "jsd", "sigmoid")


def is_this(value: Any) -> bool:
    """Whether a file's content has this program's layout."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        value = value[0]
    if not isinstance(value, Mapping):
        return False
    names = {str(k).removeprefix("module.") for k in value}
    return {"temb.dense.0.weight", "conv_in.weight", "mid.block_1.norm1.weight"} <= names


def read(value: Any, settings: Mapping[str, Any], where: str) -> Parts:
    """The parts of a checkpoint from a file's content and the program's own settings.

    Args:
        value: [model, optimizer, epoch, step, ema] or a plain state dict.
        settings: the YAML's sections data, model, diffusion; all may be absent.

    Raises:
        Refused: a layout or a setting that is not this program's; names it.
    """
    known_only(settings, SECTIONS, where, "section of its YAML")
    given: dict[str, Any] = {}
    for name, known in KNOWN.items():
        given |= section(name, settings.get(name, {}), known, where)
    notes: list[str] = []
    state = _weights(value, where, given, notes)
    config = _network(state, given, where, notes)
    if flag(given, "data.logit_transform", False, where=where):
        raise Refused(f"{where} was trained on logits of pixels (logit_transform), which is not supported")
    size = _size(given, config, where, notes)
    low = -1.0 if flag(given, "data.rescaled", True, where=where) else 0.0
    schedule = _schedule(given, where, notes)
    return Parts(
        config | {"sample_size": size},
        _translate(state, config, where),
        schedule,
        "eps",
        notes,
        spacing="ermongroup-uniform",
        data_range=(low, 1.0),
        clips=False,
    )


def _weights(value: Any, where: str, given: Mapping[str, Any], notes: list[str]) -> dict[str, Tensor]:
    if not isinstance(value, list):
        return state_dict(value, where)
    if (
        flag(given, "model.ema", True, where=where)
        and len(value) >= 5
        and isinstance(value[-1], Mapping)
        and "conv_in.weight" in {str(k).removeprefix("module.") for k in value[-1]}
    ):
        notes.append("EMA weights (the last element of the training list)")
        return state_dict(value[-1], where)
    notes.append("raw weights (the training list has no EMA, or its YAML says ema: false)")
    return state_dict(value[0], where)


def _network(state: dict[str, Tensor], given: Mapping[str, Any], where: str, notes: list[str]) -> dict[str, Any]:
    state.pop("logvar", None)  # of the "bayesian" type: a log variance the sampler never reads
    levels = _count(state, "down.{}.block.0.conv1.weight")
    layers = _count(state, "down.0.block.{}.conv1.weight")
    if not levels or not layers:
        raise Refused(f"{where} is not a whole {KIND} network (1 missing: down.0.block.0.conv1.weight)")
    base = sized(state, "conv_in.weight", 0, where, KIND)
    widths = [sized(state, f"down.{i}.block.0.conv1.weight", 0, where, KIND) for i in range(levels)]
    attention = [f"down.{i}.attn.0.q.weight" in state for i in range(levels)]
    channels, out = sized(state, "conv_in.weight", 1, where, KIND), sized(state, "conv_out.weight", 0, where, KIND)
    changes: dict[str, Any] = {}
    if widths[0] != base:
        notes.append(
            f"ch_mult begins with {widths[0] / base:g}: no diffusers configuration says that, so the model folder is "
            "read by ddim only"
        )
        changes = {"time_embedding_dim": 4 * base, "_ddim": {"first_channels": base, "time_channels": base}}
    found = {
        "model.ch": base, "model.ch_mult": [w // base for w in widths], "model.num_res_blocks": layers,
        "model.in_channels": channels, "model.out_ch": out, "data.channels": channels,
    }  # fmt: skip
    agree({k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}, found, where)
    return changes | {
        "in_channels": channels,
        "out_channels": out,
        "block_out_channels": widths,
        "layers_per_block": layers,
        "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
        "attention_head_dim": None,
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "downsample_padding": 0,
        "dropout": fraction(given, "model.dropout", where=where),
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    n = 0
    while pattern.format(n) in state:
        n += 1
    return n


def _size(given: Mapping[str, Any], config: Mapping[str, Any], where: str, notes: list[str]) -> int:
    """The side: given, told by attn_resolutions, or that of the published network of as many levels.

    Raises:
        Refused: not told by anything; or a side at which attn_resolutions are not the weights' levels.
    """
    attention = [kind == "AttnDownBlock2D" for kind in config["down_block_types"]]
    at = given.get("model.attn_resolutions")
    if at is not None and not (isinstance(at, (list, tuple)) and all(is_whole(r, 1, MAX_SIDE) for r in at)):
        raise Refused(f"{where}: model.attn_resolutions must be a list of whole numbers, got {reprlib.repr(at)}")
    told = sides_of(attention, PUBLISHED if at is None else at)
    if given.get("data.image_size") is not None:
        side = whole(given, "data.image_size", 0, MAX_SIDE, where=where)
        if at is not None:
            refuse_misfit(side, attention, at, "data.image_size", where)
        else:
            doubted(side, attention, (PUBLISHED,), notes)
        return side
    known = told[0] if at is not None and len(told) == 1 else SIDES.get(len(attention))
    if known is None or (at is None and any(attention) and told != [known]):
        by = f" ({told[0]} if its attention is at {listed(PUBLISHED)}, as in the published networks)" if told else ""
        raise Refused(f"{where}: the image size is not in the file; give it: `set` data.image_size=<side>{by}")
    reason = f", as its attention is at {listed(at)}" if at is not None and told else ""
    notes.append(f"image size is not in the file: assumed {known} x {known}{reason}")
    return known


def _translate(state: dict[str, Tensor], config: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    t = Translation(state, where)
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    for new, old in ENDS:
        t.move(new, old)
    _block(t, "mid_block.resnets.0", "mid.block_1")
    _attention(t, "mid_block.attentions.0", "mid.attn_1")
    _block(t, "mid_block.resnets.1", "mid.block_2")
    for i in range(levels):
        up = levels - 1 - i
        for side, new, blocks in (("down", f"down_blocks.{i}", layers), ("up", f"up_blocks.{up}", layers + 1)):
            for j in range(blocks):
                _block(t, f"{new}.resnets.{j}", f"{side}.{i}.block.{j}")
                if config["down_block_types"][i] == "AttnDownBlock2D":
                    _attention(t, f"{new}.attentions.{j}", f"{side}.{i}.attn.{j}")
        width = config["block_out_channels"][i]
        if i < levels - 1:
            if f"down.{i}.downsample.conv.weight" in state:
                t.move(f"down_blocks.{i}.downsamplers.0.conv", f"down.{i}.downsample.conv")
            else:  # resamp_with_conv: False is 2x2 average pooling; padding is on the right and bottom
                t.pool(f"down_blocks.{i}.downsamplers.0.conv", width, 0)
        if i > 0:
            if f"up.{i}.upsample.conv.weight" in state:
                t.move(f"up_blocks.{up}.upsamplers.0.conv", f"up.{i}.upsample.conv")
            else:
                t.identity(f"up_blocks.{up}.upsamplers.0.conv", width)
    return t.finish(KIND)


def _block(t: Translation, new: str, old: str) -> None:
    for a, b in (("norm1", "norm1"), ("conv1", "conv1"), ("time_emb_proj", "temb_proj"), ("norm2", "norm2"),
                 ("conv2", "conv2")):  # fmt: skip
        t.move(f"{new}.{a}", f"{old}.{b}")
    if f"{old}.nin_shortcut.weight" in t.state:
        t.move(f"{new}.conv_shortcut", f"{old}.nin_shortcut")


def _attention(t: Translation, new: str, old: str) -> None:
    t.move(f"{new}.group_norm", f"{old}.norm")
    for a, b in (("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")):
        t.linear(f"{new}.{a}", f"{old}.{b}")


def _schedule(given: Mapping[str, Any], where: str, notes: list[str]) -> Schedule:
    if not any(name.startswith("diffusion.") for name in given):
        notes.append(
            "schedule is not in the file: assumed linear betas 1e-4 to 0.02, T = 1000 (every published network)"
        )
    T = whole(given, "diffusion.num_diffusion_timesteps", 1000, where=where)
    name = choice(given, "diffusion.beta_schedule", "linear", SCHEDULES, where=where)
    start = number(given, "diffusion.beta_start", 1e-4, low=0.0, where=where)
    end = number(given, "diffusion.beta_end", 0.02, low=0.0, where=where)
    if name == "linear":
        return Schedule.linear(T, beta_start=start, beta_end=end)
    if name == "quad":
        return Schedule.scaled_linear(T, beta_start=start, beta_end=end)
    if name == "const":
        return Schedule.from_betas([end] * T)
    if name == "jsd":
        return Schedule.from_betas([1.0 / (T - i) for i in range(T)])
    return Schedule.from_betas(torch.sigmoid(torch.linspace(-6, 6, T, dtype=torch.float64)) * (end - start) + start)
