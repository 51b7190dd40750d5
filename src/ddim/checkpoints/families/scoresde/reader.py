"""score_sde_pytorch's checkpoints: {"optimizer", "model", "ema", "step"}, the network's settings in a file beside it.

What the weights show is read off them; what they do not (which SDE, the image's side, the resampling filter) is assumed
as that program's configurations have it, and said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ddim.checkpoints.families.parts import Parts
from ddim.checkpoints.families.scoresde.layers import ROOT, described, layers_of, translated
from ddim.checkpoints.families.translate import state_dict
from ddim.checkpoints.settings import choice, flag, flat, known_only, whole
from ddim.process import TimeLabel, subvp, ve, vp
from ddim.refused import Refused

KNOWN = ("sde", "image_size", "fir", "beta_min", "beta_max", "ema")
SECTIONS = ("training", "data", "model")
NORMED = {"vesde": ve, "vpsde": vp, "subvpsde": subvp}
SIGMAS = "sigmas"


def is_this(value: Any) -> bool:
    """Whether a file's content has this program's layout."""
    model = value.get("model") if isinstance(value, Mapping) else None
    return isinstance(model, Mapping) and any(
        isinstance(k, str) and k.removeprefix("module.").startswith(ROOT) for k in model
    )


def read(value: Any, settings: Mapping[str, Any], where: str) -> Parts:
    """The parts of a checkpoint.

    Args:
        settings: of its configuration, at the top or in the sections training, data and model: sde (vesde, vpsde,
            subvpsde), image_size, fir, beta_min, beta_max; ema false takes the weights as trained.
    """
    given = {k: v for k, v in flat(settings, SECTIONS).items() if k in KNOWN or k not in IGNORED}
    known_only(given, KNOWN, where, "setting")
    state, notes = state_dict(value["model"], where), []
    if flag(given, "ema", True, where=where):
        state = _averaged(state, value.get("ema"), where)
    layers = layers_of(state, where)
    fourier = layers.kinds[:1] == ["fourier"]
    told = ("sde", "image_size", "fir")
    sde = choice(given, "sde", "vesde" if fourier else "vpsde", tuple(NORMED), where=where)
    side = whole(given, "image_size", 32, where=where)
    fir = flag(given, "fir", fourier, where=where)
    assumed = {"sde": sde, "image_size": side, "fir": fir}
    missing = [f"{name} = {assumed[name]}" for name in told if name not in given]
    if missing:
        notes.append(f"not in the file: assumed {', '.join(missing)}, as that program's configurations have it")
    if (sde == "vesde") != fourier:
        raise Refused(
            f"{where}: sde = {sde} with {'Fourier' if fourier else 'positional'} features of time is not read"
        )
    config = described(layers, side, where) | {"resample_filter": [1, 3, 3, 1] if fir else [1, 1]}
    new = translated(layers, config, where)
    if fourier:
        return _exploding(config, new, state, notes, where)
    numbers = {name: float(given[name]) for name in ("beta_min", "beta_max") if name in given}
    process = NORMED[sde](**numbers)
    label = TimeLabel("time", 999.0)
    return Parts(config, new, process, "eps", notes, spacing="uniform", clips=False, time_label=label)


def _exploding(
    config: dict[str, Any], new: dict[str, Tensor], state: Mapping[str, Tensor], notes: list[str], where: str
) -> Parts:
    """NCSN++ knows images from 0 to 1, and sees 2x - 1: images from -1 to 1 in twice the noise.

    It returns -eps over the noise; without that division it is eps, once its last layer is turned round.
    """
    sigmas = state.get(SIGMAS)
    if sigmas is None or sigmas.ndim != 1 or len(sigmas) < 2 or not 0 < float(sigmas.min()) < float(sigmas.max()):
        raise Refused(f"{where} lacks the noise levels of its network (sigmas)")
    last = [name for name in new if ".".join(name.split(".")[:-1]).endswith("aux_conv")]
    new |= {name: -new[name] for name in last}
    process = ve(2 * float(sigmas.min()), 2 * float(sigmas.max()))
    label = TimeLabel("log-sigma", 1.0, -math.log(2.0))
    return Parts(config, new, process, "eps", notes, spacing="uniform", clips=False, time_label=label)


def _averaged(state: Mapping[str, Tensor], ema: Any, where: str) -> dict[str, Tensor]:
    """The averages in place of what was trained: a list in the order of the weights, without the Fourier features."""
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    names = [name for name in state if (name.startswith(ROOT) and not name.endswith(".W")) or ".NIN_" in name]
    if not isinstance(shadow, list) or len(shadow) != len(names):
        count = len(shadow) if isinstance(shadow, list) else "no"
        raise Refused(
            f"{where} holds {count} averages for {len(names)} weights; give ema=false to take these as trained"
        )
    for name, value in zip(names, shadow, strict=True):
        if not isinstance(value, Tensor) or value.shape != state[name].shape:
            raise Refused(f"{where}: the average in the place of {name} has another shape; give ema=false")
    return dict(state) | dict(zip(names, shadow, strict=True))


IGNORED = frozenset({
    "name", "scale_by_sigma", "ema_rate", "normalization", "nonlinearity", "nf", "ch_mult", "num_res_blocks",
    "attn_resolutions", "resamp_with_conv", "conditional", "fir_kernel", "skip_rescale", "resblock_type", "progressive",
    "progressive_input", "progressive_combine", "attention_type", "init_scale", "fourier_scale", "conv_size", "dropout",
    "embedding_type", "sigma_min", "sigma_max", "num_scales", "num_channels", "centered", "continuous", "dataset",
})  # fmt: skip
"""Names in its configurations that the weights say by themselves, or that say nothing of the network."""
