"""lucidrains/denoising-diffusion-pytorch 2.x: what its Trainer saves, read without the package.

The file holds the network, its EMA and the schedule's float32 buffers. The objective can be read off one of
them: loss_weight is SNR-weighting seen through the objective (1, SNR or SNR/(SNR + 1), SNR perhaps clipped).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddim.checkpoints.lucidrains_net import CLASS
from ddim.checkpoints.parts import Parts
from ddim.checkpoints.settings import agree, flag, whole
from ddim.checkpoints.translate import sized, state_dict
from ddim.schedule import Schedule

KIND = "lucidrains"
OBJECTIVES = {"pred_noise": "eps", "pred_x0": "x0", "pred_v": "v"}
PREFIXES = ("ema_model.model.", "online_model.model.", "module.", "model.", "")
SECTIONS = {
    "unet": "unet",
    "unet_kwargs": "unet",
    "diffusion": "diffusion",
    "diffusion_kwargs": "diffusion",
    "ema": "ema",
}
IGNORED = {"flash_attn", "dropout", "sampling_timesteps", "ddim_sampling_eta", "min_snr_loss_weight", "min_snr_gamma",
           "offset_noise_strength", "immiscible", "hybrid_loss", "sinusoidal_pos_emb_theta"}  # fmt: skip


def is_this(value: Any) -> bool:
    """Whether a file's content has this program's layout."""
    if not isinstance(value, Mapping):
        return False
    inner = value.get("model")
    names = set(inner if isinstance(inner, Mapping) else value)
    return any({f"{p}init_conv.weight", f"{p}mid_block1.block1.proj.weight"} <= names for p in PREFIXES)


def read(value: Any, settings: Mapping[str, Any], where: str) -> Parts:
    """The parts of a checkpoint from a Trainer file, a GaussianDiffusion or a Unet state dict.

    Args:
        settings: {"unet": {..}, "diffusion": {..}}, the two constructors' arguments; "ema": false takes the
            raw weights.

    Raises:
        ValueError: a layout or a setting that is not this program's; names it.
    """
    unknown = sorted(set(settings) - set(SECTIONS))
    if unknown:
        raise ValueError(f"{where}: {', '.join(unknown)} is not unet, diffusion or ema")
    given = {SECTIONS[k]: v for k, v in settings.items()}
    unet, diffusion = dict(given.get("unet") or {}), dict(given.get("diffusion") or {})
    notes: list[str] = []
    state, buffers = _weights(value, flag(given, "ema", True), where, notes)
    config = _network(state, unet, where)
    size = diffusion.get("image_size")
    if size is None:
        raise ValueError(f"{where}: the image size is not in the file; give it: --set diffusion.image_size=64")
    config["sample_size"] = size if isinstance(size, int) else [int(n) for n in size]
    schedule = _schedule(buffers, diffusion, where, notes)
    if not flag(diffusion, "auto_normalize", True):
        notes.append("auto_normalize = False: the data range is what the images were fed as; assumed -1 to 1")
    notes.append("no diffusers block expresses this network, so the model folder is read by ddim only")
    prediction = _prediction(buffers, diffusion, schedule, notes, where)
    return Parts(config, state, schedule, prediction, notes, spacing="paper-linear")


def _weights(value: Any, ema: bool, where: str, notes: list[str]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's state dict and the buffers beside it."""
    if isinstance(value, Mapping) and isinstance(value.get("model"), Mapping):
        averaged = value.get("ema")
        if ema and isinstance(averaged, Mapping) and any(str(k).startswith("ema_model.") for k in averaged):
            notes.append("EMA weights (ema_model)")
            inner = {
                str(k).removeprefix("ema_model."): v for k, v in averaged.items() if str(k).startswith("ema_model.")
            }
        else:
            notes.append("raw weights" + (" (the file has no EMA)" if ema else ", as asked"))
            inner = dict(value["model"])
        value = inner
    everything = state_dict(value, where)
    if "init_conv.weight" in everything:
        return everything, {}
    network = {k.removeprefix("model."): v for k, v in everything.items() if k.startswith("model.")}
    return network, {k: v for k, v in everything.items() if not k.startswith("model.")}


def _network(state: Mapping[str, Tensor], unet: Mapping[str, Any], where: str) -> dict[str, Any]:
    if "time_mlp.0.weights" in state:
        raise ValueError(f"{where}: learned or random sinusoids of time are not supported")
    if "mid_block1.block1.norm.weight" in state or "mid_attn.mem_kv" not in state:
        raise ValueError(f"{where} was written before version 2.0 (other norms, other attention); not supported")
    dim = sized(state, "time_mlp.1.weight", 1, where, KIND)
    first = sized(state, "init_conv.weight", 0, where, KIND)
    channels, out = sized(state, "init_conv.weight", 1, where, KIND), sized(state, "final_conv.weight", 0, where, KIND)
    if flag(unet, "self_condition", channels == 2 * out):
        raise ValueError(f"{where}: a self-conditioned network needs its own last answer as input; not supported")
    mults: list[float] = []
    full: list[bool] = []
    while f"downs.{len(mults)}.0.block1.proj.weight" in state:
        i = len(mults)
        name = f"downs.{i}.3.1.weight" if f"downs.{i}.3.1.weight" in state else f"downs.{i}.3.weight"
        mults.append(sized(state, name, 0, where, KIND) / dim)
        full.append(f"downs.{i}.2.to_out.weight" in state)
    _, heads, mem, dim_head = (int(n) for n in _four(state["mid_attn.mem_kv"], where))
    found = {
        "dim": dim, "dim_mults": mults, "channels": channels, "attn_heads": heads, "attn_dim_head": dim_head,
        "learned_variance": out == 2 * channels,
    }  # fmt: skip
    asked = {k: list(v) if isinstance(v, tuple) else v for k, v in unet.items()}
    unknown = sorted(set(asked) - set(found) - IGNORED - {"self_condition", "init_dim", "out_dim", "full_attn"})
    if unknown:
        raise ValueError(f"{where}: {', '.join(unknown)} is no argument of this program's Unet that can be honoured")
    agree(asked, found, where)
    return {
        "_class_name": CLASS, "dim": dim, "init_dim": first, "dim_mults": [int(m) for m in mults],
        "in_channels": channels, "out_channels": out, "full_attn": full, "heads": heads, "dim_head": dim_head,
        "mem": mem,
    }  # fmt: skip


def _four(value: Tensor, where: str) -> tuple[int, ...]:
    if value.ndim != 4:
        raise ValueError(f"{where}: mid_attn.mem_kv has shape {tuple(value.shape)}, not that of a {KIND} network")
    return tuple(value.shape)


# -- the process -----------------------------------------------------------------------------------------


def _sigmoid(u: float, start: float = -3.0, end: float = 3.0) -> float:
    """alpha_bar(u) of its sigmoid schedule (arXiv 2212.11972): a falling logistic curve, 1 at 0 and 0 at 1.

    The program has the two ends in float32, which moves its last betas by 1e-5; so they are here.
    """
    low, high = torch.tensor([start, end]).sigmoid()
    value = 1.0 / (1.0 + math.exp(-(u * (end - start) + start)))
    return (float(high) - value) / float(high - low)


def named_schedule(name: str, T: int) -> Schedule:
    """The program's schedule of that name.

    Raises:
        ValueError: another name.
    """
    if name == "linear":
        return Schedule.linear(T, beta_start=0.1 / T, beta_end=20.0 / T)
    if name == "cosine":
        return Schedule.cosine(T)
    if name == "sigmoid":
        return Schedule.from_alpha_bar_function(_sigmoid, T)
    raise ValueError(f"beta_schedule {name!r} is unknown; this program has linear, cosine, sigmoid")


def _schedule(buffers: Mapping[str, Tensor], diffusion: Mapping[str, Any], where: str, notes: list[str]) -> Schedule:
    """The named schedule behind the float32 buffer, in float64; the buffer itself where no name fits."""
    asked = diffusion.get("beta_schedule")
    if "betas" not in buffers:
        T, name = whole(diffusion, "timesteps", 1000), asked or "sigmoid"
        notes.append(
            f"no schedule in the file: T = {T}, {name}" + ("" if asked else " (the program's default) assumed")
        )
        return named_schedule(name, T)
    betas = buffers["betas"].double().flatten()
    agree(diffusion, {"timesteps": len(betas)}, where)
    for name in ("sigmoid", "cosine", "linear"):
        schedule = named_schedule(name, len(betas))
        if torch.allclose(schedule.betas(), betas, rtol=3e-7, atol=1e-11):
            agree(diffusion, {"beta_schedule": name}, where)
            return schedule
    notes.append("schedule taken from the file's float32 betas: none of this program's names gives them")
    return Schedule.from_betas(betas)


def _prediction(
    buffers: Mapping[str, Tensor], diffusion: Mapping[str, Any], schedule: Schedule, notes: list[str], where: str
) -> str:
    asked = diffusion.get("objective")
    if asked is not None and asked not in OBJECTIVES:
        raise ValueError(f"{where}: objective {asked!r} is unknown; this program has {', '.join(OBJECTIVES)}")
    weights = buffers.get("loss_weight")
    told = None if weights is None else _objective(weights.double().flatten(), schedule)
    if told is None and asked is None:
        notes.append("objective is not in the file: assumed pred_v (the program's default)")
    elif told is not None and asked is None:
        notes.append(f"objective {told}: read off the file's loss weights")
    elif told not in (None, asked):
        notes.append(f"objective {asked} as asked, though the file's loss weights are those of {told}")
    return OBJECTIVES[asked or told or "pred_v"]


def _objective(weights: Tensor, schedule: Schedule) -> str | None:
    """Which objective has these loss weights. Without clipping: 1, SNR, SNR/(SNR + 1); clipping is by min(SNR, c)."""
    a = schedule.alpha_bar[1:]
    snr = a / (1 - a)
    if len(weights) != len(snr):
        return None
    for name, scale in (("pred_noise", snr), ("pred_x0", torch.ones_like(snr)), ("pred_v", snr + 1)):
        clipped = weights * scale  # min(SNR, c), if this is the objective
        if torch.allclose(clipped, snr.clamp(max=float(clipped.max())), rtol=2e-3, atol=1e-7):
            return name
    return None
