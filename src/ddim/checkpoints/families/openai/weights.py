"""The weights of OpenAI's networks under the names of diffusers' `UNet2DModel`."""

from __future__ import annotations

from torch import Tensor

from ddim.checkpoints.families.openai.layout import KIND, Layout
from ddim.checkpoints.families.translate import Translation

ENDS = (
    ("conv_in", "input_blocks.0.0"), ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
)  # fmt: skip


def translated(
    state: dict[str, Tensor], layout: Layout, heads: int | None, head_dim: int, new_order: bool, where: str
) -> dict[str, Tensor]:
    """A state dict of theirs as one of diffusers'; what is left over is an error.

    Args:
        heads, head_dim: the head count where no size of a head fits every width, else None; channels a head.
        new_order: rows of q, k, v by kind and then by head, as `use_new_attention_order` has them.
        where: the file, for messages.

    Raises:
        Refused: a weight that is missing, has another shape, or has no place.
    """
    t = Translation(state, where)

    def block(new: str, old: str) -> None:
        for a, b in (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"),
                     ("norm2", "out_layers.0"), ("conv2", "out_layers.3")):  # fmt: skip
            t.move(f"{new}.{a}", f"{old}.{b}")
        if f"{old}.skip_connection.weight" in state:
            t.move(f"{new}.conv_shortcut", f"{old}.skip_connection")

    def attention(new: str, old: str, width: int) -> None:
        t.move(f"{new}.group_norm", f"{old}.norm")
        t.qkv(new, f"{old}.qkv", heads or width // head_dim, by_head=not new_order)
        t.linear(f"{new}.to_out.0", f"{old}.proj_out")

    for new, old in ENDS:
        t.move(new, old)
    if layout.classes is not None:
        value = t.take("label_emb.weight")
        if value is not None:
            t.new["class_embedding.weight"] = value
    block("mid_block.resnets.0", "middle_block.0")
    attention("mid_block.attentions.0", "middle_block.1", layout.widths[-1])
    block("mid_block.resnets.1", "middle_block.2")
    last, n = len(layout.widths) - 1, layout.layers
    for i, (width, attends) in enumerate(zip(layout.widths, layout.attention, strict=True)):
        up = last - i
        for j in range(n):
            old = f"input_blocks.{1 + i * (n + 1) + j}"
            block(f"down_blocks.{i}.resnets.{j}", f"{old}.0")
            if attends:
                attention(f"down_blocks.{i}.attentions.{j}", f"{old}.1", width)
        for j in range(n + 1):
            old = f"output_blocks.{up * (n + 1) + j}"
            block(f"up_blocks.{up}.resnets.{j}", f"{old}.0")
            if attends:
                attention(f"up_blocks.{up}.attentions.{j}", f"{old}.1", width)
        if i < last:
            new, old = f"down_blocks.{i}.downsamplers.0", f"input_blocks.{(i + 1) * (n + 1)}.0"
            if layout.updown:
                block(new, old)
            elif layout.convs:
                t.move(f"{new}.conv", f"{old}.op")
            else:
                t.pool(f"{new}.conv", width, 1)
        if i > 0:
            new, old = f"up_blocks.{up}.upsamplers.0", f"output_blocks.{up * (n + 1) + n}.{1 + attends}"
            if layout.updown:
                block(new, old)
            elif layout.convs:
                t.move(f"{new}.conv", f"{old}.conv")
            else:
                t.identity(f"{new}.conv", width)
    return t.finish(KIND)
