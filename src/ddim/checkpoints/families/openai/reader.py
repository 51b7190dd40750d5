"""OpenAI improved-diffusion and guided-diffusion (ADM) as a `UNet2DModel`.

The two write the same layout: plain state dicts of parameters, without flags. Shapes tell everything but the
head count, the order of q, k, v rows, the image size, T and the schedule. Facts of these networks: GroupNorm
eps 1e-5; cosine before sine, divisor half; improved-diffusion rescales times to t * 1000/T by default.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ddim.checkpoints.families.openai.layout import Layout, layout_of
from ddim.checkpoints.families.openai.sizes import image_size
from ddim.checkpoints.families.openai.weights import translated
from ddim.checkpoints.families.parts import Parts
from ddim.checkpoints.families.translate import state_dict
from ddim.checkpoints.settings import agree, flag, flat, fraction, known_only, whole
from ddim.process import Schedule
from ddim.refused import Refused

DEFAULT_HEADS = 4  # of both programs' scripts
NETWORK = {
    "image_size", "in_channels", "model_channels", "num_channels", "out_channels", "num_res_blocks",
    "attention_resolutions", "dropout", "channel_mult", "conv_resample", "dims", "num_classes", "class_cond",
    "use_checkpoint", "use_fp16", "num_heads", "num_head_channels", "num_heads_upsample", "use_scale_shift_norm",
    "resblock_updown", "use_new_attention_order",
}  # fmt: skip
DIFFUSION = {
    "steps", "diffusion_steps", "learn_sigma", "sigma_small", "noise_schedule", "use_kl", "predict_xstart",
    "rescale_timesteps", "rescale_learned_sigmas",
}  # fmt: skip
SAMPLING = {"timestep_respacing", "clip_denoised", "num_samples", "batch_size", "use_ddim", "model_path"}


def is_this(value: Any) -> bool:
    """Whether a file's content has these programs' layout."""
    if not isinstance(value, Mapping):
        return False
    names = {str(k).removeprefix("module.") for k in value}
    return {"time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight"} <= names


def read(value: Any, settings: Mapping[str, Any], where: str) -> Parts:
    """The parts of a checkpoint from a state dict and the programs' flags or constructor arguments.

    Args:
        settings: names of the scripts (num_channels, diffusion_steps, class_cond ..) or of the constructors
            (model_channels, steps, num_classes ..), flat or under model_kwargs and diffusion_kwargs.

    Raises:
        Refused: a layout or a flag that is not theirs, or a flag that the shapes contradict.
    """
    flags = flat(settings, ("model_kwargs", "diffusion_kwargs", "model", "diffusion"))
    known_only(flags, NETWORK | DIFFUSION | SAMPLING, where, "flag of improved-diffusion and guided-diffusion")
    state = state_dict(value, where)
    layout = layout_of(state, where)
    notes: list[str] = []
    _check_flags(flags, layout, where)
    if layout.base != layout.first:
        notes.append(
            f"a time sinusoid of {layout.base} beside a first level of {layout.first} channels: no diffusers "
            "configuration says that, so the model folder is read by ddim only"
        )
    heads, head_dim = _heads(flags, layout, notes, where)
    config = _config(layout, heads, head_dim, image_size(flags, layout, where, notes), flags, where)
    weights = translated(
        state, layout, heads, head_dim, flag(flags, "use_new_attention_order", False, where=where), where
    )
    if "use_new_attention_order" not in flags and any(layout.attention):
        notes.append("order of q, k, v rows is not in the file: assumed the legacy order (the scripts' default)")
    T = whole(flags, "diffusion_steps", whole(flags, "steps", 1000, where=where), where=where)
    if "diffusion_steps" not in flags and "steps" not in flags:
        notes.append("T is not in the file: assumed 1000 (the scripts' default)")
    return Parts(
        config,
        weights,
        _schedule(flags, T, notes),
        "x0" if flag(flags, "predict_xstart", False, where=where) else "eps",
        notes,
        spacing="openai",
        time_scale=_time_scale(flags, T, layout, notes),
        variance_type=_variance(flags, layout, where),
    )


# -- flags ------------------------------------------------------------------------------------------------


def _check_flags(flags: Mapping[str, Any], layout: Layout, where: str) -> None:
    mult = tuple(w / layout.base for w in layout.widths)
    given = dict(flags)
    if isinstance(given.get("channel_mult"), str):
        given["channel_mult"] = given["channel_mult"].replace("(", "").replace(")", "") or None
    if isinstance(given.get("channel_mult"), str):
        given["channel_mult"] = _multipliers(given["channel_mult"], where)
    if isinstance(given.get("channel_mult"), list):
        given["channel_mult"] = tuple(given["channel_mult"])
    for name in ("learn_sigma", "use_scale_shift_norm", "resblock_updown", "class_cond"):
        if name in given:
            given[name] = flag(given, name, False, where=where)
    if given.get("num_classes") is None:
        given.pop("num_classes", None)
    found = {
        "model_channels": layout.base,
        "num_channels": layout.base,
        "in_channels": layout.channels,
        "out_channels": layout.out,
        "num_res_blocks": layout.layers,
        "channel_mult": mult,
        "num_classes": layout.classes,
        "class_cond": layout.classes is not None,
        "use_scale_shift_norm": layout.scale_shift,
        "learn_sigma": layout.out == 2 * layout.channels,
    }
    if len(layout.widths) > 1:
        found["resblock_updown"] = layout.updown
    agree(given, found, where)
    if flags.get("dims", 2) != 2:
        raise Refused(f"{where}: dims = {flags['dims']}; images have 2")


def _multipliers(text: str, where: str) -> tuple[float, ...]:
    try:
        return tuple(float(m) for m in text.split(",") if m.strip())
    except ValueError:
        raise Refused(f"{where}: channel_mult must be numbers and commas, got {text!r}") from None


def _heads(flags: Mapping[str, Any], layout: Layout, notes: list[str], where: str) -> tuple[int | None, int]:
    """(heads, channels a head): no head count, None, where heads of one size fit every width."""
    widths = {w for w, a in zip(layout.widths, layout.attention, strict=True) if a} | {layout.widths[-1]}
    dim = flags.get("num_head_channels", -1)
    if dim not in (-1, None):
        bad = [w for w in widths if w % whole(flags, "num_head_channels", 1, where=where)]
        if bad:
            raise Refused(f"{where}: {bad[0]} channels cannot be cut into heads of num_head_channels = {dim}")
        return None, int(dim)
    if "num_heads" not in flags:
        notes.append(
            f"head count is not in the file: assumed num_heads = {DEFAULT_HEADS} (the scripts' default); "
            "published ADM networks use num_head_channels = 64"
        )
    heads = whole(flags, "num_heads", DEFAULT_HEADS, where=where)
    if flags.get("num_heads_upsample", -1) not in (-1, heads):
        raise Refused(f"{where}: num_heads_upsample = {flags['num_heads_upsample']} differs from num_heads = {heads}")
    bad = [w for w in widths if w % heads]
    if bad:
        raise Refused(f"{where}: {bad[0]} channels cannot be shared by num_heads = {heads}")
    dims = {w // heads for w in widths}
    if len(dims) == 1:
        return None, dims.pop()
    notes.append(
        f"{heads} heads at {', '.join(map(str, sorted(widths)))} channels: no diffusers configuration says that, "
        "so the model folder is read by ddim only"
    )
    dim = layout.widths[-1] // heads  # a size every width is whole with, so that it can be built; the heads replace it
    return heads, dim if all(w % dim == 0 for w in widths) else math.gcd(*widths)


def _config(
    layout: Layout, heads: int | None, head_dim: int, size: int, flags: Mapping[str, Any], where: str
) -> dict[str, Any]:
    if layout.first != layout.widths[0]:
        raise Refused(
            f"the first convolution gives {layout.first} channels and the first level has {layout.widths[0]}; "
            "diffusers' network needs them equal"
        )
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if layout.updown else ("DownBlock2D", "UpBlock2D")
    changes: dict[str, int] = {} if heads is None else {"attention_heads": heads}
    if layout.base != layout.first:
        changes["time_channels"] = layout.base
    resize = "resnet" if layout.updown else "conv"
    config: dict[str, Any] = {
        "sample_size": size,
        "in_channels": layout.channels,
        "out_channels": layout.out,
        "block_out_channels": layout.widths,
        "layers_per_block": layout.layers,
        "down_block_types": ["AttnDownBlock2D" if a else plain[0] for a in layout.attention],
        "up_block_types": ["AttnUpBlock2D" if a else plain[1] for a in reversed(layout.attention)],
        "downsample_type": resize,
        "upsample_type": resize,
        "downsample_padding": 1,
        "attention_head_dim": head_dim,
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,
        "norm_eps": 1e-5,
        "resnet_time_scale_shift": "scale_shift" if layout.scale_shift else "default",
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "time_embedding_dim": 4 * layout.base,
        "num_class_embeds": layout.classes,
        "dropout": fraction(flags, "dropout", where=where),
    }
    return config | ({"_ddim": changes} if changes else {})


# -- the process -----------------------------------------------------------------------------------------


def _schedule(flags: Mapping[str, Any], T: int, notes: list[str]) -> Schedule:
    name = flags.get("noise_schedule", "linear")
    if "noise_schedule" not in flags:
        notes.append("noise schedule is not in the file: assumed linear (the scripts' default)")
    if name == "linear":  # the betas of T = 1000, scaled so that the whole process destroys as much
        return Schedule.linear(T, beta_start=0.1 / T, beta_end=20.0 / T)
    if name == "cosine":
        return Schedule.cosine(T)
    raise Refused(f"noise_schedule {name!r} is unknown; these programs have linear and cosine")


def _variance(flags: Mapping[str, Any], layout: Layout, where: str) -> str:
    small = flag(flags, "sigma_small", False, where=where)
    if layout.out == 2 * layout.channels:
        return "learned_range"  # which both programs take whenever sigma is learned
    return "fixed_small" if small else "fixed_large"


def _time_scale(flags: Mapping[str, Any], T: int, layout: Layout, notes: list[str]) -> float:
    if T == 1000:
        return 1.0
    if "rescale_timesteps" not in flags:
        guided = layout.updown or layout.classes is not None
        notes.append(
            f"rescale_timesteps is not in the file: assumed {not guided} "
            f"({'guided' if guided else 'improved'}-diffusion's default)"
        )
        return 1.0 if guided else 1000.0 / T
    return 1000.0 / T if flag(flags, "rescale_timesteps", True) else 1.0
