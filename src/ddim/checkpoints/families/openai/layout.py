"""What the shapes of an OpenAI state dict tell about its network: nearly everything but the heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ddim.checkpoints.families.translate import sized
from ddim.refused import Refused

KIND = "OpenAI"


@dataclass
class Layout:
    """What the shapes tell. Blocks are counted as the peer counts them: input_blocks.0 is the first convolution."""

    base: int  # model_channels, the width of the time sinusoid
    first: int  # channels after the first convolution
    widths: list[int]
    layers: int
    attention: list[bool]
    updown: bool  # ResBlocks that resize, in place of convolutions
    convs: bool  # convolutions that resize
    scale_shift: bool
    channels: int
    out: int
    classes: int | None


def layout_of(state: Mapping[str, Tensor], where: str) -> Layout:
    """The layout that a state dict's names and shapes tell.

    Raises:
        Refused: not one of these networks; names the file `where`.
    """
    base = sized(state, "time_embed.0.weight", 1, where, KIND)
    first = sized(state, "input_blocks.0.0.weight", 0, where, KIND)
    top = 1 + max(int(k.split(".")[1]) for k in state if k.startswith("input_blocks.") and k.split(".")[1].isdigit())
    if top > 1000 or len(state["input_blocks.0.0.weight"].shape) != 4:
        raise Refused(f"{where} is not a two-dimensional {KIND} network")
    updown, convs, layers = _resizing(state, top)
    step, widths, attention = layers + 1, [], []
    for k in range(1, top, step):
        widths.append(sized(state, f"input_blocks.{k}.0.out_layers.3.weight", 0, where, KIND))
        attention.append(f"input_blocks.{k}.1.qkv.weight" in state)
    rows = sized(state, "input_blocks.1.0.emb_layers.1.weight", 0, where, KIND)
    return Layout(
        base=base,
        first=first,
        widths=widths,
        layers=layers,
        attention=attention,
        updown=updown,
        convs=convs,
        scale_shift=rows == 2 * widths[0],
        channels=sized(state, "input_blocks.0.0.weight", 1, where, KIND),
        out=sized(state, "out.2.weight", 0, where, KIND),
        classes=len(state["label_emb.weight"]) if "label_emb.weight" in state else None,
    )


def _resizing(state: Mapping[str, Tensor], top: int) -> tuple[bool, bool, int]:
    """(by ResBlocks, by convolutions, blocks a level). The first enlarging layer ends output block `layers`."""
    for k in range(top):
        for part in (1, 2):
            if f"output_blocks.{k}.{part}.conv.weight" in state:
                return False, True, k
            if f"output_blocks.{k}.{part}.in_layers.0.weight" in state:
                return True, False, k
    gaps = [k for k in range(1, top) if f"input_blocks.{k}.0.in_layers.0.weight" not in state]
    return False, False, (gaps[0] - 1 if gaps else top - 1)  # pooling has no weights: a number left out
