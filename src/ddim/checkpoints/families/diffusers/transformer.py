"""diffusers' DiT (arXiv 2212.09748), checked before memory is spent on it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from ddim.checkpoints.families.diffusers.changes import MAX_WIDTH
from ddim.checkpoints.settings import MAX_SIDE, known_only, whole
from ddim.files import read_json
from ddim.refused import Refused

DIT, BEFORE = "DiTTransformer2DModel", "Transformer2DModel"  # its class, and what files of the hub call it
UNUSED = {"attention_type": "default"} | dict.fromkeys(
    ("cross_attention_dim", "num_vector_embeds", "only_cross_attention", "use_linear_projection",
     "double_self_attention", "caption_channels", "interpolation_scale", "use_additional_conditions")
)  # fmt: skip
"""Settings of the older class that a DiT leaves as they are; None or false."""
WHOLES = {
    "num_attention_heads": (16, 1024), "attention_head_dim": (72, 1024), "in_channels": (4, MAX_SIDE),
    "num_layers": (28, 256), "norm_num_groups": (32, MAX_WIDTH), "sample_size": (32, 2048), "patch_size": (2, 1024),
    "num_embeds_ada_norm": (1000, MAX_WIDTH),
}  # fmt: skip
FAULTS = (TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError, LookupError, AssertionError)


def as_dit(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The configuration of a `Transformer2DModel` that is a DiT as one; any other as it is.

    Raises:
        Refused: it is no DiT: another norm, or told of more than classes.
    """
    if config.get("_class_name") != BEFORE:
        return dict(config)
    odd = [k for k, usual in UNUSED.items() if config.get(k) not in (usual, False)]
    if config.get("norm_type") != "ada_norm_zero" or odd:
        what = f"{odd[0]} = {config[odd[0]]!r}" if odd else f"norm_type = {config.get('norm_type')!r}"
        raise Refused(f"{where}: a {BEFORE} is read where it is a DiT (norm_type ada_norm_zero); this one has {what}")
    return {k: v for k, v in config.items() if k not in UNUSED} | {"_class_name": DIT}


def in_our_words(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A DiT's configuration with what readers of networks ask for: channels out, and classes with the null label."""
    own = {name: whole(config, name, usual, most, where=where) for name, (usual, most) in WHOLES.items()}
    out = config.get("out_channels") or own["in_channels"]
    return dict(config) | {"out_channels": out, "sample_size": own["sample_size"]}


def classes_of(config: Mapping[str, Any]) -> int:
    """Its embeddings: one a class, and the last for none."""
    return int(config.get("num_embeds_ada_norm", 1000)) + 1


def class_facts(config: Mapping[str, Any], facts: Mapping[str, Any], index: Path) -> dict[str, Any]:
    """What no ddim.json tells of a DiT's classes: the null label is its last embedding, for it is made to drop labels;
    their names stand in a DiTPipeline's model_index.json (id2label), if anywhere.

    Raises:
        Refused: id2label does not name each class once.
    """
    found: dict[str, Any] = {}
    if config.get("_class_name") != DIT:
        return found
    if facts.get("null_label") is None and facts.get("num_classes") is None:
        found = {"null_label": classes_of(config) - 1, "num_classes": classes_of(config) - 1}
    told = read_json(index).get("id2label") if facts.get("labels") is None and index.is_file() else None
    if told is None:
        return found
    count = classes_of(config) - 1
    if not isinstance(told, Mapping) or set(told) != {str(k) for k in range(count)}:
        raise Refused(f"{index}: id2label must name the classes 0 to {count - 1}, each once")
    return found | {"labels": tuple(str(told[str(k)]) for k in range(count))}


def empty_transformer(config: Mapping[str, Any], where: str) -> nn.Module:
    """The network on torch's meta device: shapes without memory.

    Raises:
        Refused: a setting that is unknown, or makes no network.
    """
    from diffusers import DiTTransformer2DModel

    settings = {k: v for k, v in config.items() if not k.startswith("_")}
    known_only(settings, set(inspect.signature(DiTTransformer2DModel.__init__).parameters) - {"self"}, where,
               "setting in the network's config")  # fmt: skip
    in_our_words(config, where)
    try:
        with torch.device("meta"):
            return cast(nn.Module, DiTTransformer2DModel(**settings))  # type: ignore[no-untyped-call]  # diffusers has no types
    except FAULTS as error:
        raise Refused(f"{where}: diffusers cannot build this network: {' '.join(str(error).split())[:200]}") from None


def placed(network: Any) -> None:
    """Give a network that was filled its table of places, which is in no file."""
    from diffusers.models.embeddings import PatchEmbed

    c, own = network.config, network.pos_embed
    wide = c["num_attention_heads"] * c["attention_head_dim"]
    real = PatchEmbed(
        height=c["sample_size"], width=c["sample_size"], patch_size=c["patch_size"], in_channels=c["in_channels"],
        embed_dim=wide,
    )  # type: ignore[no-untyped-call]  # diffusers has no types  # fmt: skip
    own.pos_embed = real.pos_embed
