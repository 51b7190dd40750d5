"""The layers of score_sde's networks: one list of numbered modules, told apart by the names of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim.nets import plan
from ddim.refused import Refused

ROOT = "all_modules."


class Layers(NamedTuple):
    """The numbered modules of a network, each with its weights by name; `kinds` in their order."""

    weights: list[dict[str, Tensor]]
    kinds: list[str]


def layers_of(state: Mapping[str, Tensor], where: str) -> Layers:
    """The modules of a state.

    Raises:
        Refused: numbers that do not count up, or a module of an unknown kind.
    """
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        number, _, rest = name.removeprefix(ROOT).partition(".")
        if name.startswith(ROOT) and number.isdecimal() and len(number) < 6:
            found.setdefault(int(number), {})[rest] = value
    if sorted(found) != list(range(len(found))):
        raise Refused(f"{where}: the modules of its network are not numbered from 0 without gaps")
    weights = [found[i] for i in range(len(found))]
    return Layers(weights, [_kind(w, f"{where}: module {i}") for i, w in enumerate(weights)])


def _kind(w: Mapping[str, Tensor], where: str) -> str:
    if set(w) == {"W"}:
        return "fourier"
    if "NIN_3.W" in w and "GroupNorm_0.weight" in w:
        return "attention"
    if {"Conv_0.weight", "Conv_1.weight", "Dense_0.weight", "GroupNorm_1.weight"} <= set(w) and "NIN_0.W" not in w:
        wide_out, wide_in = w["Conv_0.weight"].shape[:2]
        return "resampling" if "Conv_2.weight" in w and wide_out == wide_in else "block"
    if set(w) == {"Conv2d_0.weight", "Conv2d_0.bias"}:
        return "residual"
    if set(w) == {"weight", "bias"}:
        return {4: "conv", 2: "dense", 1: "norm"}.get(w["weight"].ndim, "")
    raise Refused(f"{where} ({', '.join(sorted(w))[:80]}) is of a kind that is not read; DDPM++ and NCSN++ blocks are")


def described(layers: Layers, side: int, where: str) -> dict[str, Any]:
    """The configuration of a `ScoreUnet` of these layers for images of this side.

    Raises:
        Refused: layers in an order that is neither DDPM++'s nor NCSN++'s.
    """
    kinds, fourier = layers.kinds, layers.kinds[:1] == ["fourier"]
    first = 2 + fourier
    body, weights = kinds[first:], layers.weights[first:]
    levels = body.count("resampling") // 2 + 1
    blocks = (body.count("block") - 2 - levels) // (2 * levels)
    if kinds[fourier:first] != ["dense", "dense"] or body[:1] != ["conv"] or blocks < 1:
        raise Refused(f"{where} does not begin as DDPM++ and NCSN++ do")
    widths, attending, at = [weights[0]["weight"].shape[0]], [], 1
    for level in range(levels):
        attends = body[at + 1 : at + 2] == ["attention"]
        last = at + (blocks - 1) * (1 + attends)
        if body[at : at + 1] != ["block"] or body[last : last + 1] != ["block"]:
            raise Refused(f"{where} has {', '.join(body[at : last + 1])} on level {level + 1} of its encoder")
        widths.append(weights[last]["Conv_0.weight"].shape[0])
        attending += [side >> level] if attends else []
        at = last + 1 + attends + 1 + (body[last + attends + 2 : last + attends + 3] == ["residual"])
    return {
        "_class_name": "ScoreUnet", "flavour": "song", "sample_size": side,
        "in_channels": weights[0]["weight"].shape[1], "out_channels": weights[-1]["weight"].shape[0],
        "model_channels": widths[0],
        "channel_mult": [w // widths[0] for w in widths[1:]], "num_blocks": blocks, "attn_resolutions": attending,
        "num_class_embeds": None, "channel_mult_noise": 1 + fourier, "decoder_type": "standard",
        "embedding_type": "fourier" if fourier else "positional",
        "encoder_type": "residual" if "residual" in body else "standard",
    }  # fmt: skip


NAMES = {"GroupNorm_0": "norm0", "Conv_0": "conv0", "Dense_0": "affine", "GroupNorm_1": "norm1", "Conv_1": "conv1",
         "Conv_2": "skip"}  # fmt: skip


def translated(layers: Layers, config: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The state of that `ScoreUnet`.

    Raises:
        Refused: the layers are not those of the configuration.
    """
    row = torch.tensor(config["resample_filter"], dtype=torch.float32)
    taps = torch.outer(row, row)[None, None] / row.sum() ** 2
    left, new = list(zip(layers.kinds, layers.weights, strict=True)), {}

    def take(*kinds: str) -> dict[str, Tensor]:
        if not left or left[0][0] not in kinds:
            there = left[0][0] if left else "the end"
            raise Refused(f"{where} has {there} where a network of its kind has {' or '.join(kinds)}")
        return left.pop(0)[1]

    def put(name: str, w: Mapping[str, Tensor]) -> None:
        new.update({f"{name}.{part}": value for part, value in w.items()})

    if config["embedding_type"] == "fourier":
        new["map_noise.freqs"] = take("fourier")["W"]
    put("map_layer0", take("dense"))
    put("map_layer1", take("dense"))
    for layer in plan(config):
        name = f"{layer.part}.{layer.name}"
        if layer.kind in ("block", "down", "up"):
            w = take("block") if layer.kind == "block" else take("resampling")
            put(name, {f"{NAMES[k.partition('.')[0]]}.{k.partition('.')[2]}": v for k, v in w.items()})
            if layer.kind != "block":
                put(name, {"conv0.resample_filter": taps, "skip.resample_filter": taps})
            if layer.attends:
                put(name, _attention(take("attention")))
        elif layer.kind == "residual":
            put(name, {k.partition(".")[2]: v for k, v in take("residual").items()} | {"resample_filter": taps})
        else:
            put(name, take("norm") if layer.kind == "norm" else take("conv"))
    if left:
        raise Refused(f"{where} has {len(left)} modules more than a network of its kind")
    return new


def _attention(w: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Three layers of C outputs as one of 3C, whose rows go q, k, v of each channel in turn; and the last."""
    weight = torch.stack([w[f"NIN_{i}.W"].T for i in range(3)], 1).flatten(0, 1)
    bias = torch.stack([w[f"NIN_{i}.b"] for i in range(3)], 1).flatten()
    return {
        "norm2.weight": w["GroupNorm_0.weight"], "norm2.bias": w["GroupNorm_0.bias"],
        "qkv.weight": weight[:, :, None, None], "qkv.bias": bias,
        "proj.weight": w["NIN_3.W"].T[:, :, None, None].contiguous(), "proj.bias": w["NIN_3.b"],
    }  # fmt: skip
