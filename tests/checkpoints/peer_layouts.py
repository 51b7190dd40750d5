"""Networks in the peers' own layouts: names and shapes of their state dicts, and weights that anybody can fill in.

Written from the published layouts. Weights are numpy's frozen RandomState seeded by name, so that the peers' own code
could be given the same ones once: tests/data/golden/peer_layouts.safetensors holds what it answered.
"""

import itertools
import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
ANSWERS = Path(__file__).parents[1] / "data/golden/peer_layouts.safetensors"
SIDE, CLASSES = 8, 5
TIMES = (3, 417)  # 0-based times of the answers


def filled(shapes: Shapes) -> dict[str, Tensor]:
    """Weights that keep signals at their size: gains 1 + 0.2 z, biases 0.2 z, kernels z / sqrt(fan in)."""
    return {name: _drawn(name, shape) for name, shape in shapes.items()}


def _drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    gain = len(shape) == 1 and name.endswith("weight")
    scale = 0.2 if len(shape) == 1 else float(np.prod(shape[1:])) ** -0.5
    return (gain + scale * _normal(name, shape)).float()


def _normal(name: str, shape: tuple[int, ...]) -> Tensor:
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy(draw.standard_normal(shape))


def asked(channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the answers answer: x (2, C, SIDE, SIDE), 0-based t, labels."""
    return _normal("x", (2, channels, SIDE, SIDE)).float(), torch.tensor(TIMES), torch.tensor([1, 4])


def covering(options: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Few cases in which every two options of different kinds meet: each the best of 50 drawn ones, always the same."""
    draw, kinds = random.Random(0), list(options)
    left = {(a, i, b, j) for a, b in itertools.combinations(kinds, 2)
            for i in range(len(options[a])) for j in range(len(options[b]))}  # fmt: skip

    def met(case: dict[str, int]) -> set[tuple[str, int, str, int]]:
        return left & {(a, case[a], b, case[b]) for a, b in itertools.combinations(kinds, 2)}

    cases = []
    while left:
        a, i, b, j = min(left)
        drawn = [{k: draw.randrange(len(options[k])) for k in kinds} | {a: i, b: j} for _ in range(50)]
        best = max(drawn, key=lambda case: len(met(case)))
        left -= met(best)
        cases.append({k: options[k][n] for k, n in best.items()})
    return cases


def answers() -> dict[str, Tensor]:
    """What the peers' own programs said, by case."""
    return load_file(ANSWERS)


def _layer(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


# -- ermongroup/ddim --------------------------------------------------------------------------------------


def ermongroup(
    *, ch: int, ch_mult: Sequence[int], num_res_blocks: int, attention: Sequence[int], resamp_with_conv: bool
) -> Shapes:
    """Attention by levels, counted from the full size; three channels."""
    widths, time = [ch * m for m in ch_mult], 4 * ch

    def block(name: str, a: int, b: int) -> Shapes:
        short = _layer(f"{name}.nin_shortcut", b, a, 1, 1) if a != b else {}
        return {
            **_layer(f"{name}.norm1", a), **_layer(f"{name}.conv1", b, a, 3, 3), **_layer(f"{name}.temb_proj", b, time),
            **_layer(f"{name}.norm2", b), **_layer(f"{name}.conv2", b, b, 3, 3), **short,
        }  # fmt: skip

    def attend(name: str, a: int) -> Shapes:
        parts = {k: v for p in ("q", "k", "v", "proj_out") for k, v in _layer(f"{name}.{p}", a, a, 1, 1).items()}
        return _layer(f"{name}.norm", a) | parts

    out = _layer("temb.dense.0", time, ch) | _layer("temb.dense.1", time, time) | _layer("conv_in", ch, 3, 3, 3)
    now, skips = ch, [ch]
    for i, width in enumerate(widths):
        for j in range(num_res_blocks):
            out |= block(f"down.{i}.block.{j}", now, width)
            out |= attend(f"down.{i}.attn.{j}", width) if i in attention else {}
            now = width
            skips.append(now)
        if i < len(widths) - 1:
            out |= _layer(f"down.{i}.downsample.conv", now, now, 3, 3) if resamp_with_conv else {}
            skips.append(now)
    out |= block("mid.block_1", now, now) | attend("mid.attn_1", now) | block("mid.block_2", now, now)
    for i, width in reversed(list(enumerate(widths))):
        for j in range(num_res_blocks + 1):
            out |= block(f"up.{i}.block.{j}", now + skips.pop(), width)
            out |= attend(f"up.{i}.attn.{j}", width) if i in attention else {}
            now = width
        if i and resamp_with_conv:
            out |= _layer(f"up.{i}.upsample.conv", now, now, 3, 3)
    return out | _layer("norm_out", now) | _layer("conv_out", 3, now, 3, 3)


# -- OpenAI ------------------------------------------------------------------------------------------------


def openai(
    *,
    model_channels: int,
    channel_mult: Sequence[float],
    num_res_blocks: int,
    attention: Sequence[int],
    conv_resample: bool,
    resblock_updown: bool,
    use_scale_shift_norm: bool,
    learn_sigma: bool,
    num_classes: int | None,
    channels: int = 3,
) -> Shapes:
    """Attention by levels, counted from the full size. The head count and the order of q, k, v leave no trace."""
    widths, time = [int(model_channels * m) for m in channel_mult], 4 * model_channels

    def block(name: str, a: int, b: int) -> Shapes:
        short = _layer(f"{name}.skip_connection", b, a, 1, 1) if a != b else {}
        return {
            **_layer(f"{name}.in_layers.0", a), **_layer(f"{name}.in_layers.2", b, a, 3, 3),
            **_layer(f"{name}.emb_layers.1", b * (1 + use_scale_shift_norm), time), **_layer(f"{name}.out_layers.0", b),
            **_layer(f"{name}.out_layers.3", b, b, 3, 3), **short,
        }  # fmt: skip

    def attend(name: str, a: int) -> Shapes:
        return _layer(f"{name}.norm", a) | _layer(f"{name}.qkv", 3 * a, a, 1) | _layer(f"{name}.proj_out", a, a, 1)

    def resize(name: str, a: int, conv: str) -> Shapes:
        return block(name, a, a) if resblock_updown else _layer(f"{name}.{conv}", a, a, 3, 3) if conv_resample else {}

    out = _layer("time_embed.0", time, model_channels) | _layer("time_embed.2", time, time)
    out |= {"label_emb.weight": (num_classes, time)} if num_classes else {}
    out |= _layer("input_blocks.0.0", widths[0], channels, 3, 3)
    now, skips = widths[0], [widths[0]]
    for i, width in enumerate(widths):
        for _ in range(num_res_blocks):
            out |= block(f"input_blocks.{len(skips)}.0", now, width)
            out |= attend(f"input_blocks.{len(skips)}.1", width) if i in attention else {}
            now = width
            skips.append(now)
        if i < len(widths) - 1:
            out |= resize(f"input_blocks.{len(skips)}.0", now, "op")
            skips.append(now)
    out |= block("middle_block.0", now, now) | attend("middle_block.1", now) | block("middle_block.2", now, now)
    place = 0
    for i, width in reversed(list(enumerate(widths))):
        for j in range(num_res_blocks + 1):
            out |= block(f"output_blocks.{place}.0", now + skips.pop(), width)
            out |= attend(f"output_blocks.{place}.1", width) if i in attention else {}
            now = width
            if i and j == num_res_blocks:
                out |= resize(f"output_blocks.{place}.{1 + (i in attention)}", now, "conv")
            place += 1
    return out | _layer("out.0", now) | _layer("out.2", channels * (1 + learn_sigma), now, 3, 3)
