"""The networks of the score SDEs and of EDM: DDPM++, NCSN++ and ADM as the latter wrote them, one module for all three.

Written anew from the papers (arXiv 2011.13456, appendix H; 2105.05233; 2206.00364, appendix F) and the names and shapes
in their files; the parameters have those names, so that a state needs no translation. `plan` says which layers there
are; a layer is what its kind and its two widths make it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddim.nets.lucidrains import Output
from ddim.nets.scoreblocks import HALF, Block, Embedding, Resampled, group_norm


class Planned(NamedTuple):
    """A layer: the part it is of ("enc", "dec"), its name there, what it is, its widths, and whether it attends."""

    part: str
    name: str
    kind: str  # conv, block, down, up; aux: down0, skip, residual, up0, norm, out
    wide_in: int
    wide_out: int
    attends: bool = False
    joins: bool = False  # it takes what the encoder left beside what comes from below


def plan(c: Mapping[str, Any]) -> Iterator[Planned]:
    """The layers of a configuration, in the order they are walked."""
    sides = [c["sample_size"] >> level for level in range(len(c["channel_mult"]))]
    widths = [c["model_channels"] * mult for mult in c["channel_mult"]]
    song, attending = c["flavour"] == "song", set(c["attn_resolutions"])
    wide, side = (c["model_channels"] if song else widths[0]), c["in_channels"]
    left = [wide]
    yield Planned("enc", f"{sides[0]}x{sides[0]}_conv", "conv", c["in_channels"], wide)
    for level, side_now in enumerate(sides):
        at = f"{side_now}x{side_now}_"
        if level:
            yield Planned("enc", at + "down", "down", wide, wide)
            left.append(wide)
            if c["encoder_type"] == "skip":
                yield Planned("enc", at + "aux_down", "down0", side, side)
                yield Planned("enc", at + "aux_skip", "skip", side, wide)
            elif c["encoder_type"] == "residual":
                yield Planned("enc", at + "aux_residual", "residual", side, wide)
                side = wide
        for i in range(c["num_blocks"]):
            yield Planned("enc", f"{at}block{i}", "block", wide, widths[level], side_now in attending)
            wide = widths[level]
            left.append(wide)
    for level in reversed(range(len(sides))):
        at = f"{sides[level]}x{sides[level]}_"
        if level == len(sides) - 1:
            yield Planned("dec", at + "in0", "block", wide, wide, True)
            yield Planned("dec", at + "in1", "block", wide, wide)
        else:
            yield Planned("dec", at + "up", "up", wide, wide)
        for i in range(c["num_blocks"] + 1):
            attends = sides[level] in attending and (not song or i == c["num_blocks"])
            yield Planned("dec", f"{at}block{i}", "block", wide + left.pop(), widths[level], attends, True)
            wide = widths[level]
        if song and (level == 0 or c["decoder_type"] == "skip"):
            if level < len(sides) - 1 and c["decoder_type"] == "skip":
                yield Planned("dec", at + "aux_up", "up0", c["out_channels"], c["out_channels"])
            yield Planned("dec", at + "aux_norm", "norm", wide, wide)
            yield Planned("dec", at + "aux_conv", "out", wide, c["out_channels"])


class ScoreUnet(nn.Module):
    """unet(x, t, class_labels).sample for x (B, C, side, side), t (B,) real.

    Args:
        flavour: "song" (DDPM++, NCSN++) or "adm".
        sample_size: the image's side. in_channels, out_channels: of the image, and of what is returned.
        num_class_embeds: K + 1 for K classes, the last of them "any class"; None without classes.
        model_channels, channel_mult, channel_mult_emb, num_blocks, attn_resolutions, dropout: width of the first level,
            factors of each, of the embedding; blocks a level; sides at which blocks attend.
        augment_dim: width of the augmentation label, which sampling leaves out.
        embedding_type, channel_mult_noise, encoder_type, decoder_type, resample_filter: "song" alone.
    """

    def __init__(
        self, *, flavour: str, sample_size: int, in_channels: int, out_channels: int, model_channels: int,
        channel_mult: Sequence[int], num_blocks: int, attn_resolutions: Sequence[int], channel_mult_emb: int = 4,
        dropout: float = 0.0, num_class_embeds: int | None = None, augment_dim: int = 0,
        embedding_type: str = "positional", channel_mult_noise: int = 1, encoder_type: str = "standard",
        decoder_type: str = "standard", resample_filter: Sequence[int] = (1, 1),
    ) -> None:  # fmt: skip
        super().__init__()
        given = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        lists = {k: list(given[k]) for k in ("channel_mult", "attn_resolutions", "resample_filter")}
        self.config: dict[str, Any] = {"_class_name": type(self).__name__, **given, **lists}
        self.song, self.classes = flavour == "song", None if num_class_embeds is None else num_class_embeds - 1
        noise, wide = model_channels * channel_mult_noise, model_channels * channel_mult_emb
        self.map_noise = Embedding(noise, embedding_type == "fourier", self.song)
        if augment_dim:
            self.map_augment = nn.Linear(augment_dim, noise, bias=False)
        self.map_layer0, self.map_layer1 = nn.Linear(noise, wide), nn.Linear(wide, wide)
        if self.classes is not None:
            self.map_label = nn.Linear(self.classes, noise if self.song else wide, bias=self.song)
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        self.walk = list(plan(self.config))
        for layer in self.walk:
            (self.enc if layer.part == "enc" else self.dec)[layer.name] = self._made(layer, wide)
        if not self.song:
            last = model_channels * channel_mult[0]
            self.out_norm, self.out_conv = group_norm(last, 1e-5), Resampled(last, out_channels, 3)

    def _made(self, layer: Planned, emb: int) -> nn.Module:
        a, b, taps = layer.wide_in, layer.wide_out, self.config["resample_filter"]
        if layer.kind in ("block", "down", "up"):
            heads = 0 if not layer.attends else 1 if self.song else b // 64
            return Block(a, b, emb, layer.kind, heads, taps, self.song, self.config["dropout"])
        if layer.kind == "norm":
            return group_norm(a, 1e-6)
        kernel, way = {
            "conv": (3, ""), "out": (3, ""), "skip": (1, ""), "down0": (0, "down"), "up0": (0, "up"),
            "residual": (3, "down"),
        }[layer.kind]  # fmt: skip
        return Resampled(a, b, kernel, way, taps, after=layer.kind == "residual")

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Output:
        """class_labels: int64 (B,), K means any class; or weights over classes, float (B, K)."""
        emb = self._embedded(x, t, class_labels)
        kept: list[Tensor] = []
        side, pyramid, normed = x, None, x
        for layer in self.walk:
            module: Any = (self.enc if layer.part == "enc" else self.dec)[layer.name]
            if layer.kind in ("block", "down", "up"):
                x = module(torch.cat([x, kept.pop()], 1) if layer.joins else x, emb)
            elif layer.kind == "conv":
                x = module(x)
            elif layer.kind == "down0":
                side = module(side)
                continue
            elif layer.kind == "skip":
                x = kept[-1] = x + module(side)
                continue
            elif layer.kind == "residual":
                x = kept[-1] = side = (x + module(side)) * HALF
                continue
            elif layer.kind == "up0":
                pyramid = module(pyramid)
            elif layer.kind == "norm":
                normed = module(x)
            else:
                out = module(functional.silu(normed))
                pyramid = out if pyramid is None else pyramid + out
            if layer.part == "enc":
                kept.append(x)
        if self.song:
            assert pyramid is not None  # the last layer of every plan makes it
            return Output(pyramid)
        return Output(self.out_conv(functional.silu(self.out_norm(x))))

    def _embedded(self, x: Tensor, t: Tensor, class_labels: Tensor | None) -> Tensor:
        emb, label = self.map_noise(t.to(x.dtype)), None
        if self.classes is not None:
            label = class_labels
            if label is None:
                label = torch.full((len(x),), self.classes, device=x.device)
            if not label.is_floating_point():
                label = functional.one_hot(label.long(), self.classes + 1)[:, : self.classes]
            label = label.to(x.dtype)
        if self.song:
            if label is not None:
                emb = emb + self.map_label(label * math.sqrt(label.shape[1]))
            return functional.silu(self.map_layer1(functional.silu(self.map_layer0(emb))))
        emb = self.map_layer1(functional.silu(self.map_layer0(emb)))
        return functional.silu(emb if label is None else emb + self.map_label(label))
