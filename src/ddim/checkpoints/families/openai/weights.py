"""The weights of OpenAI's networks under the names of diffusers' `UNet2DModel`."""

from __future__ import annotations

from dataclasses import dataclass

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
    move = _Moves(t, layout, heads, head_dim, by_head=not new_order)
    for new, old in ENDS:
        t.move(new, old)
    if layout.classes is not None:
        value = t.take("label_emb.weight")
        if value is not None:
            t.new["class_embedding.weight"] = value
    move.block("mid_block.resnets.0", "middle_block.0")
    move.attention("mid_block.attentions.0", "middle_block.1", layout.widths[-1])
    move.block("mid_block.resnets.1", "middle_block.2")
    for i in range(len(layout.widths)):
        move.level(i)
        move.resizing(i)
    return t.finish(KIND)


@dataclass(frozen=True)
class _Moves:
    """Parts of the network from their names to diffusers'. Levels are counted from the full size."""

    t: Translation
    layout: Layout
    heads: int | None
    head_dim: int
    by_head: bool

    def block(self, new: str, old: str) -> None:
        for a, b in (("norm1", "in_layers.0"), ("conv1", "in_layers.2"), ("time_emb_proj", "emb_layers.1"),
                     ("norm2", "out_layers.0"), ("conv2", "out_layers.3")):  # fmt: skip
            self.t.move(f"{new}.{a}", f"{old}.{b}")
        if f"{old}.skip_connection.weight" in self.t.state:
            self.t.move(f"{new}.conv_shortcut", f"{old}.skip_connection")

    def attention(self, new: str, old: str, width: int) -> None:
        self.t.move(f"{new}.group_norm", f"{old}.norm")
        self.t.qkv(new, f"{old}.qkv", self.heads or width // self.head_dim, by_head=self.by_head)
        self.t.linear(f"{new}.to_out.0", f"{old}.proj_out")

    def level(self, i: int) -> None:
        """Blocks and attention of one level, on both sides."""
        n, up = self.layout.layers, len(self.layout.widths) - 1 - i
        downs = [(f"down_blocks.{i}", j, f"input_blocks.{1 + i * (n + 1) + j}") for j in range(n)]
        ups = [(f"up_blocks.{up}", j, f"output_blocks.{up * (n + 1) + j}") for j in range(n + 1)]
        for new, j, old in downs + ups:
            self.block(f"{new}.resnets.{j}", f"{old}.0")
            if self.layout.attention[i]:
                self.attention(f"{new}.attentions.{j}", f"{old}.1", self.layout.widths[i])

    def resizing(self, i: int) -> None:
        """Between one level and the next smaller one, going down, and the next larger one, going up."""
        n, width, last = self.layout.layers, self.layout.widths[i], len(self.layout.widths) - 1
        if i < last:
            new, old = f"down_blocks.{i}.downsamplers.0", f"input_blocks.{(i + 1) * (n + 1)}.0"
            if self.layout.updown:
                self.block(new, old)
            elif self.layout.convs:
                self.t.move(f"{new}.conv", f"{old}.op")
            else:
                self.t.pool(f"{new}.conv", width, 1)
        if i > 0:
            up = last - i
            part = 1 + self.layout.attention[i]
            new, old = f"up_blocks.{up}.upsamplers.0", f"output_blocks.{up * (n + 1) + n}.{part}"
            if self.layout.updown:
                self.block(new, old)
            elif self.layout.convs:
                self.t.move(f"{new}.conv", f"{old}.conv")
            else:
                self.t.identity(f"{new}.conv", width)
