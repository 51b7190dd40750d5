"""EDM's network-snapshot.pkl and the pickles published with its paper: a network, and the preconditioning around it.

D(x; sigma) = c_skip x + c_out F(c_in x; c_noise) (arXiv 2206.00364, eq. 7), with the columns VP, VE and EDM of its
table 1. All three walk the edm process; VP's F is eps of x at unit variance, VE's -eps of x itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from ddim.checkpoints.families.parts import Parts
from ddim.checkpoints.safety import Persisted
from ddim.checkpoints.settings import choice, fraction, known_only, number, whole
from ddim.process import TimeLabel, edm, vp
from ddim.refused import Refused

USUAL = (0.002, 80.0)  # the least and most noise that program samples with, where the network has more
FLAVOURS = {"SongUNet": "song", "DhariwalUNet": "adm"}
SHARED = {
    "model_channels": None, "channel_mult": None, "channel_mult_emb": 4, "num_blocks": None, "attn_resolutions": None,
    "augment_dim": 0,
}  # fmt: skip
OF_SONG = {
    "embedding_type": "positional", "channel_mult_noise": 1, "encoder_type": "standard", "decoder_type": "standard",
    "resample_filter": [1, 1],
}  # fmt: skip
DEFAULTS = {
    "SongUNet": {"model_channels": 128, "channel_mult": [1, 2, 2, 2], "num_blocks": 4, "attn_resolutions": [16]},
    "DhariwalUNet": {"model_channels": 192, "channel_mult": [1, 2, 3, 4], "num_blocks": 3,
                     "attn_resolutions": [32, 16, 8]},
}  # fmt: skip


def is_this(value: Any) -> bool:
    """Whether a file's content is a network of that program."""
    network = value.get("ema") if isinstance(value, Mapping) else None
    return isinstance(network, Persisted)


def read(value: Any, settings: Mapping[str, Any], where: str) -> Parts:
    """The parts of a pickle; it says everything itself.

    Raises:
        Refused: settings; a preconditioning or a network of another kind; a network that is not whole.
    """
    if settings:
        raise Refused(f"{where} says everything itself: leave {', '.join(settings)} out")
    outer: Persisted = value["ema"]
    if outer.class_name not in WAYS:
        raise Refused(f"{where} holds a {outer.class_name[:80]}; readable are {', '.join(WAYS)}")
    model = _modules(outer, where).get("model")
    if not isinstance(model, Persisted) or model.class_name not in FLAVOURS:
        raise Refused(f"{where} holds no network that is known; readable are {', '.join(FLAVOURS)}")
    config = _config(model, where)
    state = dict(_weights(model, where))
    notes = []
    if config["num_class_embeds"] is not None:
        dropped = fraction(model.state, "label_dropout", where=where)
        notes += [] if dropped else ["the network was always told a class: what it says of none is untrained"]
    if config["augment_dim"]:
        notes.append("the network's label of augmentations is left out, as in sampling")
    parts = Parts(config, state, edm(*_ends(outer, where)), "edm", notes, spacing="edm", clips=False)
    WAYS[outer.class_name](parts, outer, where)
    classes = config["num_class_embeds"]
    parts.null_label = None if classes is None else classes - 1
    return parts


def _vp(parts: Parts, outer: Persisted, where: str) -> None:
    least, extent = (number(outer.state, n, d, low=0.0, where=where) for n, d in (("beta_min", 0.1), ("beta_d", 19.9)))
    labels = whole(outer.state, "M", 1000, least=2, where=where)
    parts.prediction, parts.unit_input = "eps", True
    parts.time_label = TimeLabel("time", labels - 1.0, of=vp(least, least + extent))


def _ve(parts: Parts, outer: Persisted, where: str) -> None:
    parts.prediction, parts.time_label = "eps", TimeLabel("log-sigma", 1.0, -math.log(2.0))
    for name, weight in parts.state.items():  # what it returns is -eps
        if ".".join(name.split(".")[:-1]).endswith(("aux_conv", "out_conv")):
            parts.state[name] = -weight


def _edm(parts: Parts, outer: Persisted, where: str) -> None:
    parts.data_std = number(outer.state, "sigma_data", 0.5, low=0.0, where=where)
    parts.time_label = TimeLabel("log-sigma", 0.25)


WAYS = {"VPPrecond": _vp, "VEPrecond": _ve, "EDMPrecond": _edm}


def _ends(outer: Persisted, where: str) -> tuple[float, float]:
    """The noise it is sampled with: that program's, within what the network knows."""
    ends = (outer.state.get("sigma_min", 0.0), outer.state.get("sigma_max", math.inf))
    low, high = (float(v) if isinstance(v, int | float) else math.nan for v in ends)
    if not low >= 0.0 or not high > max(low, USUAL[0]):
        raise Refused(f"{where}: sigma_min = {ends[0]!r} and sigma_max = {ends[1]!r} are no range of noise")
    return max(low, USUAL[0]), min(high, USUAL[1])


def _config(model: Persisted, where: str) -> dict[str, Any]:
    """The network's constructor arguments, in the words of `nets.ScoreUnet`."""
    told, song = model.state.get("_init_kwargs"), model.class_name == "SongUNet"
    if not isinstance(told, Mapping) or model.state.get("_init_args", ()) != ():
        raise Refused(f"{where}: its {model.class_name} does not say how it was made")
    own = {**SHARED, **(OF_SONG if song else {}), **DEFAULTS[model.class_name]}
    others = ("img_resolution", "in_channels", "out_channels", "label_dim", "dropout", "label_dropout")
    known_only(told, (*own, *others), where, f"argument of its {model.class_name}")
    side = whole(told, "img_resolution", 0, where=where)
    channels, out = (whole(told, name, 0, where=where) for name in ("in_channels", "out_channels"))
    classes = whole(told, "label_dim", 0, least=0, where=where)
    if song:
        choice(told, "encoder_type", "standard", ("standard", "skip", "residual"), where=where)
        choice(told, "decoder_type", "standard", ("standard", "skip"), where=where)
        choice(told, "embedding_type", "positional", ("positional", "fourier"), where=where)
    return {
        "_class_name": "ScoreUnet", "flavour": FLAVOURS[model.class_name], "sample_size": side,
        "in_channels": channels, "out_channels": out, "num_class_embeds": classes + 1 if classes else None,
        "dropout": fraction(told, "dropout", where=where), **{k: told.get(k, v) for k, v in own.items()},
    }  # fmt: skip


def _modules(part: Persisted, where: str) -> Mapping[str, Any]:
    found = part.state.get("_modules")
    if not isinstance(found, Mapping):
        raise Refused(f"{where}: its {part.class_name[:80]} holds no modules")
    return found


def _weights(part: Persisted, where: str, before: str = "") -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by their full names."""
    for kind in ("_parameters", "_buffers"):
        own = part.state.get(kind)
        for name, value in own.items() if isinstance(own, Mapping) else ():
            if isinstance(value, Tensor):
                yield f"{before}{name}", value
    for name, inner in _modules(part, where).items():
        if isinstance(inner, Persisted):
            yield from _weights(inner, where, f"{before}{name}.")
