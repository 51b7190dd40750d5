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

from ddim.checkpoints.families.parts import Parts
from ddim.checkpoints.families.translate import sized, state_dict
from ddim.checkpoints.settings import agree, choice, flag, known_only, section, size, whole
from ddim.nets import LucidrainsUnet
from ddim.process import Schedule
from ddim.refused import Refused

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
ARGUMENTS = {  # of the two constructors; what is not read here changes no image
    "unet": (
        "dim", "init_dim", "out_dim", "dim_mults", "channels", "self_condition", "learned_variance",
        "learned_sinusoidal_cond", "random_fourier_features", "learned_sinusoidal_dim", "sinusoidal_pos_emb_theta",
        "dropout", "attn_dim_head", "attn_heads", "full_attn", "flash_attn",
    ),
    "diffusion": (
        "image_size", "timesteps", "sampling_timesteps", "objective", "beta_schedule", "schedule_fn_kwargs",
        "ddim_sampling_eta", "auto_normalize", "offset_noise_strength", "min_snr_loss_weight", "min_snr_gamma",
        "immiscible", "hybrid_loss", "vb_loss_weight",
    ),
}  # fmt: skip
SCHEDULES = ("linear", "cosine", "sigmoid")
THETA = 10000  # of the sinusoids of time, see `lucidrains_net`


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
        Refused: a layout or a setting that is not this program's; names it.
    """
    known_only(settings, SECTIONS, where, "section")
    given: dict[str, Any] = {}
    for key, inner in settings.items():
        name = SECTIONS[key]
        if name == "ema":
            given[name] = inner
            continue
        named = section(name, inner, ARGUMENTS[name], where)
        given |= {k: v for k, v in named.items() if v is not None}  # None is these constructors' "decide yourself"
    notes: list[str] = []
    state, buffers = _weights(value, flag(given, "ema", True, where=where), where, notes)
    config = _network(state, given, where)
    sides = size(given, "diffusion.image_size", where=where)
    if sides is None:
        raise Refused(f"{where}: the image size is not in the file; give it: `set` diffusion.image_size=<side>")
    config["sample_size"] = sides[0] if sides[0] == sides[1] else list(sides)
    schedule = _schedule(buffers, given, where, notes)
    if not flag(given, "diffusion.auto_normalize", True, where=where):
        notes.append("auto_normalize = False: the data range is what the images were fed as; assumed -1 to 1")
    notes.append("no diffusers block expresses this network, so the model folder is read by ddim only")
    prediction = _prediction(buffers, given, schedule, notes, where)
    learned = config["out_channels"] == 2 * config["in_channels"]  # of LearnedGaussianDiffusion, which has one kind
    variance = "learned_range" if learned else None
    return Parts(config, state, schedule, prediction, notes, spacing="paper-linear", variance_type=variance)


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


def _network(state: Mapping[str, Tensor], given: Mapping[str, Any], where: str) -> dict[str, Any]:
    others = [f"unet.{name}" for name in ("learned_sinusoidal_cond", "random_fourier_features")]
    if "time_mlp.0.weights" in state or any(flag(given, name, False, where=where) for name in others):
        raise Refused(f"{where}: learned or random sinusoids of time are not supported")
    if "mid_block1.block1.norm.weight" in state or "mid_attn.mem_kv" not in state:
        raise Refused(f"{where} was written before version 2.0 (other norms, other attention); not supported")
    if given.get("unet.sinusoidal_pos_emb_theta", THETA) != THETA:
        theta = given["unet.sinusoidal_pos_emb_theta"]
        raise Refused(f"{where}: unet.sinusoidal_pos_emb_theta = {theta!r} is not supported; {THETA} is")
    dim = sized(state, "time_mlp.1.weight", 1, where, KIND)
    first = sized(state, "init_conv.weight", 0, where, KIND)
    channels, out = sized(state, "init_conv.weight", 1, where, KIND), sized(state, "final_conv.weight", 0, where, KIND)
    if flag(given, "unet.self_condition", channels == 2 * out, where=where):
        raise Refused(f"{where}: a self-conditioned network needs its own last answer as input; not supported")
    mults: list[float] = []
    full: list[bool] = []
    while f"downs.{len(mults)}.0.block1.proj.weight" in state:
        i = len(mults)
        name = f"downs.{i}.3.1.weight" if f"downs.{i}.3.1.weight" in state else f"downs.{i}.3.weight"
        mults.append(sized(state, name, 0, where, KIND) / dim)
        full.append(f"downs.{i}.2.to_out.weight" in state)
    _, heads, mem, dim_head = (int(n) for n in _four(state["mid_attn.mem_kv"], where))
    found = {
        "unet.dim": dim, "unet.dim_mults": mults, "unet.channels": channels, "unet.attn_heads": heads,
        "unet.attn_dim_head": dim_head, "unet.learned_variance": out == 2 * channels, "unet.init_dim": first,
        "unet.out_dim": out, "unet.full_attn": full,
    }  # fmt: skip
    asked = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    levels = asked.get("unet.full_attn") or full  # False is "decide yourself", too
    asked["unet.full_attn"] = [True] * len(full) if levels is True else levels
    agree(asked, found, where)
    return {
        "_class_name": LucidrainsUnet.__name__, "dim": dim, "init_dim": first, "dim_mults": [int(m) for m in mults],
        "in_channels": channels, "out_channels": out, "full_attn": full, "heads": heads, "dim_head": dim_head,
        "mem": mem,
    }  # fmt: skip


def _four(value: Tensor, where: str) -> tuple[int, ...]:
    if value.ndim != 4:
        raise Refused(f"{where}: mid_attn.mem_kv has shape {tuple(value.shape)}, not that of a {KIND} network")
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
        Refused: another name.
    """
    if name == "linear":
        return Schedule.linear(T, beta_start=0.1 / T, beta_end=20.0 / T)
    if name == "cosine":
        return Schedule.cosine(T)
    if name == "sigmoid":
        return Schedule.from_alpha_bar_function(_sigmoid, T)
    raise Refused(f"beta_schedule {name!r} is unknown; this program has linear, cosine, sigmoid")


def _schedule(buffers: Mapping[str, Tensor], given: Mapping[str, Any], where: str, notes: list[str]) -> Schedule:
    """The named schedule behind the float32 buffer, in float64; the buffer itself where no name fits."""
    asked = choice(given, "diffusion.beta_schedule", "sigmoid", SCHEDULES, where=where)
    is_asked = "diffusion.beta_schedule" in given
    if "betas" not in buffers:
        if given.get("diffusion.schedule_fn_kwargs"):
            raise Refused(f"{where} holds no betas, and without them diffusion.schedule_fn_kwargs is not supported")
        T = whole(given, "diffusion.timesteps", 1000, where=where)
        end = "" if is_asked else " (the program's default) assumed"
        notes.append(f"no schedule in the file: T = {T}, {asked}{end}")
        return named_schedule(asked, T)
    betas = buffers["betas"].double().flatten()
    agree(given, {"diffusion.timesteps": len(betas)}, where)
    for name in ("sigmoid", "cosine", "linear"):
        schedule = named_schedule(name, len(betas))
        if torch.allclose(schedule.betas(), betas, rtol=3e-7, atol=1e-11):
            agree(given, {"diffusion.beta_schedule": name}, where)
            return schedule
    notes.append("schedule taken from the file's float32 betas: none of this program's names gives them")
    return Schedule.from_betas(betas)


def _prediction(
    buffers: Mapping[str, Tensor], given: Mapping[str, Any], schedule: Schedule, notes: list[str], where: str
) -> str:
    asked = given.get("diffusion.objective")
    if asked is not None:
        choice(given, "diffusion.objective", "", tuple(OBJECTIVES), where=where)
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
