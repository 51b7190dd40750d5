"""The network of lucidrains/denoising-diffusion-pytorch 2.x, written anew from its published layout.

No diffusers block expresses it: RMS norms over channels, linear attention with learned memory tokens, and
downsampling by folding 2x2 pixels into channels. Attribute names are the checkpoint's, so that a state dict
needs no translation.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ddim.refused import Refused


class Output(NamedTuple):
    """What diffusers' networks return."""

    sample: Tensor


class LucidrainsUnet(nn.Module):
    """unet(x, t).sample for x (B, C, H, W), t (B,).

    Args:
        dim, init_dim, dim_mults, channels, out_dim: its constructor's.
        full_attn: for each level, whether its attention is full or linear.
        heads, dim_head, mem: of every attention.
        sample_size: the image size; kept for readers of the configuration.
    """

    def __init__(
        self,
        *,
        dim: int,
        init_dim: int,
        dim_mults: tuple[int, ...],
        in_channels: int,
        out_channels: int,
        full_attn: tuple[bool, ...],
        heads: int,
        dim_head: int,
        mem: int,
        sample_size: int | tuple[int, int],
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "_class_name": type(self).__name__, "dim": dim, "init_dim": init_dim, "dim_mults": list(dim_mults),
            "in_channels": in_channels, "out_channels": out_channels, "full_attn": list(full_attn), "heads": heads,
            "dim_head": dim_head, "mem": mem, "sample_size": sample_size,
        }  # fmt: skip
        widths = [init_dim, *(dim * m for m in dim_mults)]
        levels = list(zip(itertools.pairwise(widths), full_attn, strict=True))
        time, last, own = 4 * dim, len(levels) - 1, (heads, dim_head, mem)
        kind = {True: _Attention, False: _LinearAttention}
        self.init_conv = nn.Conv2d(in_channels, init_dim, 7, padding=3)
        self.time_mlp = nn.Sequential(_Sinusoid(dim), nn.Linear(dim, time), nn.GELU(), nn.Linear(time, time))
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for i, ((a, b), full) in enumerate(levels):
            resize = _halve(a, b) if i < last else nn.Conv2d(a, b, 3, padding=1)
            self.downs.append(_level(a, a, time, kind[full](a, *own), resize))
        mid = widths[-1]
        self.mid_block1, self.mid_block2 = _Block(mid, mid, time), _Block(mid, mid, time)
        self.mid_attn = _Attention(mid, heads, dim_head, mem)
        for i, ((a, b), full) in enumerate(reversed(levels)):
            resize = _double(b, a) if i < last else nn.Conv2d(b, a, 3, padding=1)
            self.ups.append(_level(a + b, b, time, kind[full](b, *own), resize))
        self.final_res_block = _Block(2 * init_dim, init_dim, time)
        self.final_conv = nn.Conv2d(init_dim, out_channels, 1)

    def forward(self, x: Tensor, t: Tensor, class_labels: Tensor | None = None) -> Output:
        if class_labels is not None:
            raise Refused("this network was trained without classes")
        emb = self.time_mlp(t)
        x = self.init_conv(x)
        first, skips = x, []
        for level in self.downs:
            block1, block2, attend, resize = cast(nn.ModuleList, level)
            x = block1(x, emb)
            skips.append(x)
            x = block2(x, emb)
            x = x + attend(x)
            skips.append(x)
            x = resize(x)
        x = self.mid_block1(x, emb)
        x = x + self.mid_attn(x)
        x = self.mid_block2(x, emb)
        for level in self.ups:
            block1, block2, attend, resize = cast(nn.ModuleList, level)
            x = block1(torch.cat([x, skips.pop()], 1), emb)
            x = block2(torch.cat([x, skips.pop()], 1), emb)
            x = x + attend(x)
            x = resize(x)
        x = self.final_res_block(torch.cat([x, first], 1), emb)
        return Output(self.final_conv(x))


def _halve(a: int, b: int) -> nn.Module:
    return nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4 * a, b, 1))


def _double(b: int, a: int) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(b, a, 3, padding=1))


def _level(a: int, b: int, time: int, attend: nn.Module, resize: nn.Module) -> nn.ModuleList:
    return nn.ModuleList([_Block(a, b, time), _Block(a, b, time), attend, resize])


class _Sinusoid(nn.Module):
    """sin then cos of t exp(-log(10000) i / (half - 1))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pairs = dim // 2

    def forward(self, t: Tensor) -> Tensor:
        rate = math.log(10000) / (self.pairs - 1)
        angle = t[:, None] * torch.exp(torch.arange(self.pairs, device=t.device) * -rate)
        return torch.cat([angle.sin(), angle.cos()], -1)


class _RMSNorm(nn.Module):
    """x / |x| over channels, times sqrt(channels) times g."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(x, dim=1) * self.g * math.sqrt(self.g.shape[1])


class _Conv(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.proj, self.norm = nn.Conv2d(a, b, 3, padding=1), _RMSNorm(b)

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        x = self.norm(self.proj(x))
        return functional.silu(x if scale is None or shift is None else x * (scale + 1) + shift)


class _Block(nn.Module):
    """Two convolutions, the first scaled and shifted by the time, beside a shortcut."""

    def __init__(self, a: int, b: int, time: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(time, 2 * b))
        self.block1, self.block2 = _Conv(a, b), _Conv(b, b)
        self.res_conv = nn.Conv2d(a, b, 1) if a != b else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.mlp(emb)[:, :, None, None].chunk(2, 1)
        out: Tensor = self.block2(self.block1(x, scale, shift)) + self.res_conv(x)
        return out


class _LinearAttention(nn.Module):
    """softmax(q over features) (softmax(k over places) v^T), memory tokens among the places."""

    def __init__(self, dim: int, heads: int, dim_head: int, mem: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, dim_head**-0.5
        self.norm = _RMSNorm(dim)
        self.mem_kv = nn.Parameter(torch.zeros(2, heads, dim_head, mem))
        self.to_qkv = nn.Conv2d(dim, 3 * heads * dim_head, 1, bias=False)
        self.to_out = nn.Sequential(nn.Conv2d(heads * dim_head, dim, 1), _RMSNorm(dim))

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = self.to_qkv(self.norm(x)).reshape(b, 3, self.heads, -1, h * w).unbind(1)
        mem_k, mem_v = self.mem_kv.unsqueeze(1).expand(-1, b, -1, -1, -1).unbind(0)
        k, v = torch.cat([mem_k, k], -1).softmax(-1), torch.cat([mem_v, v], -1)
        out = (k @ v.mT).mT @ (q.softmax(-2) * self.scale)
        projected: Tensor = self.to_out(out.reshape(b, -1, h, w))
        return projected


class _Attention(nn.Module):
    """Scaled dot-product attention over places and memory tokens."""

    def __init__(self, dim: int, heads: int, dim_head: int, mem: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = _RMSNorm(dim)
        self.mem_kv = nn.Parameter(torch.zeros(2, heads, mem, dim_head))
        self.to_qkv = nn.Conv2d(dim, 3 * heads * dim_head, 1, bias=False)
        self.to_out = nn.Conv2d(heads * dim_head, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        q, k, v = self.to_qkv(self.norm(x)).reshape(b, 3, self.heads, -1, h * w).mT.unbind(1)
        mem_k, mem_v = self.mem_kv.unsqueeze(1).expand(-1, b, -1, -1, -1).unbind(0)
        out = functional.scaled_dot_product_attention(q, torch.cat([mem_k, k], -2), torch.cat([mem_v, v], -2))
        projected: Tensor = self.to_out(out.mT.reshape(b, -1, h, w))
        return projected
