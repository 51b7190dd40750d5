"""Pictures to look at, in a notebook or as a file: any tensor of them as one grid."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ddim.pixels.grids import enlargement, grid
from ddim.pixels.pictures import Pixels, save_png, to_uint8
from ddim.refused import Refused


@dataclass(frozen=True, repr=False, eq=False)
class Pictures:
    """One image of many pictures; a notebook shows it by itself.

    Attributes:
        image: all of them, as Pillow has it.
        words: what stands under it.
    """

    image: Image.Image
    words: str

    def __repr__(self) -> str:
        return f"Pictures({self.words}, {self.image.width}x{self.image.height} pixels)"

    def _repr_html_(self) -> str:
        data = io.BytesIO()
        self.image.save(data, format="PNG")
        source = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
        words = html.escape(self.words)
        return f"<figure style='margin:0'><img src='{source}' alt='{words}'><figcaption>{words}</figcaption></figure>"

    def save(self, path: str | Path) -> None:
        """Write it as a PNG, whole or not at all."""
        save_png(path, self.image)


def show(
    x: Tensor | Pixels,
    columns: int | None = None,
    *,
    words: str | None = None,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    scale: int | None = None,
) -> Pictures:
    """All pictures of a tensor side by side.

    Args:
        x: float (B, C, H, W), (C, H, W) or (H, W) in [-1, 1], clamped; or uint8 (B, H, W, C), (H, W, C) or (H, W) as
            NumPy has pictures. C is 1 (grey) or 3 (RGB).
        columns, row_labels, column_labels: see `grid`.
        words: what stands under them; default: how many, and their size.
        scale: by how much they are enlarged; default: to 84 pixels in height at least.

    Raises:
        Refused: another shape, or none; whole numbers in a tensor.
    """
    pixels = _pixels(x)
    n, height, width, channels = pixels.shape
    if not n or channels not in (1, 3):
        raise Refused(f"pictures have 1 or 3 channels and there is at least one, got shape {tuple(x.shape)}")
    scale = scale or enlargement(height)
    image = grid(pixels, columns, row_labels=row_labels, column_labels=column_labels, scale=scale)
    return Pictures(image, words or f"{n} picture{'s' if n > 1 else ''}, {height}x{width} {_colour(channels)}")


def _pixels(x: Tensor | Pixels) -> Pixels:
    if isinstance(x, Tensor):
        if not x.is_floating_point() or x.ndim not in (2, 3, 4):
            kind = str(x.dtype).removeprefix("torch.")
            raise Refused(f"pictures are float (B, C, H, W) in [-1, 1], got {kind} {tuple(x.shape)}")
        return to_uint8(x[(None,) * (4 - x.ndim)])
    if x.dtype != np.uint8 or x.ndim not in (2, 3, 4):
        raise Refused(f"pictures of NumPy are uint8 (B, H, W, C), got {x.dtype} {x.shape}")
    x = x[..., None] if x.ndim == 2 else x
    return x if x.ndim == 4 else x[None]


def _colour(channels: int) -> str:
    return "grey" if channels == 1 else "RGB"
