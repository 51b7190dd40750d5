"""The layers of `ScoreUnet`: an embedding of time, convolutions on resampled images, residual blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HALF = math.sqrt(0.5)


class Embedding(nn.Module):
    """Waves of a number: sin then cos of 10000^(-i/(n - 1)) t (score SDEs), cos then sin of 10000^(-i/n) t (ADM), or of
    random frequencies, which are stored."""

    def __init__(self, width: int, random: bool, song: bool) -> None:
        super().__init__()
        self.width, self.song, self.random = width, song, random
        if random:
            self.register_buffer("freqs", torch.empty(width // 2))

    def forward(self, t: Tensor) -> Tensor:
        n = self.width // 2
        if self.random:
            freqs: Any = self.freqs
            waves = 2 * math.pi * freqs
        else:
            steps = torch.arange(n, dtype=torch.float32, device=t.device) / (n - self.song)
            waves = (1 / 10000) ** steps
        angle = t[:, None] * waves.to(t.dtype)
        return torch.cat([angle.sin(), angle.cos()] if self.song else [angle.cos(), angle.sin()], 1)


class Resampled(nn.Module):
    """A convolution, on the image halved or doubled by a filter; kernel 0 is the filter alone.

    after: halve behind the convolution, with all of the border both need.
    """

    def __init__(
        self, wide_in: int, wide_out: int, kernel: int, way: str = "", taps: Sequence[int] = (1, 1), *,
        after: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.way, self.kernel, self.after = way, kernel, after
        if kernel:
            self.weight = nn.Parameter(torch.empty(wide_out, wide_in, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(wide_out))
        if way:
            row = torch.tensor(taps, dtype=torch.float32)
            self.register_buffer("resample_filter", torch.outer(row, row)[None, None] / row.sum() ** 2)

    def forward(self, x: Tensor) -> Tensor:
        border = self.kernel // 2
        if self.after:
            taps: Any = self.resample_filter
            wide = functional.conv2d(x, self.weight, padding=border + (taps.shape[-1] - 1) // 2)
            return self._resampled(wide, 0) + self.bias[None, :, None, None]
        if self.way:
            x = self._resampled(x, None)
        return functional.conv2d(x, self.weight, self.bias, padding=border) if self.kernel else x

    def _resampled(self, x: Tensor, border: int | None) -> Tensor:
        taps: Any = self.resample_filter
        own = taps.to(x).expand(x.shape[1], 1, *taps.shape[2:])
        border = (taps.shape[-1] - 1) // 2 if border is None else border
        if self.way == "up":
            return functional.conv_transpose2d(x, 4 * own, stride=2, padding=border, groups=x.shape[1])
        return functional.conv2d(x, own, stride=2, padding=border, groups=x.shape[1])


class Block(nn.Module):
    """A residual block that may halve or double the image, and attend; the embedding shifts, in ADM scales too."""

    def __init__(
        self, wide_in: int, wide_out: int, emb: int, kind: str, heads: int, taps: Sequence[int], song: bool,
        dropout: float,
    ) -> None:  # fmt: skip
        super().__init__()
        way, eps = "" if kind == "block" else kind, 1e-6 if song else 1e-5
        self.heads, self.song, self.dropout, self.shrink = heads, song, dropout, HALF if song else 1.0
        self.norm0, self.conv0 = group_norm(wide_in, eps), Resampled(wide_in, wide_out, 3, way, taps)
        self.affine = nn.Linear(emb, wide_out * (1 if song else 2))
        self.norm1, self.conv1 = group_norm(wide_out, eps), Resampled(wide_out, wide_out, 3)
        self.skip: Resampled | None = None
        if wide_in != wide_out or way:
            self.skip = Resampled(wide_in, wide_out, 1 if song or wide_in != wide_out else 0, way, taps)
        if heads:
            self.norm2, self.qkv = group_norm(wide_out, eps), Resampled(wide_out, 3 * wide_out, 1)
            self.proj = Resampled(wide_out, wide_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h, told = self.conv0(functional.silu(self.norm0(x))), self.affine(emb)[:, :, None, None]
        if self.song:
            h = functional.silu(self.norm1(h + told))
        else:
            scale, shift = told.chunk(2, 1)
            h = functional.silu(self.norm1(h) * (scale + 1) + shift)
        h = self.conv1(functional.dropout(h, self.dropout, self.training))
        x = (h + (x if self.skip is None else self.skip(x))) * self.shrink
        return x if not self.heads else (x + self._attended(x)) * self.shrink

    def _attended(self, x: Tensor) -> Tensor:
        b, c, height, width = x.shape
        q, k, v = self.qkv(self.norm2(x)).view(b, self.heads, c // self.heads, 3, -1).permute(3, 0, 1, 4, 2).unbind(0)
        seen = functional.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(seen.transpose(2, 3).reshape(b, c, height, width))
        return out


def group_norm(width: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, width // 4), width, eps=eps)
