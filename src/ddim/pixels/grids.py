"""Many pictures on one canvas, with words beside and above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddim.pixels.pictures import Pixels, as_picture
from ddim.refused import Refused

SIDE = 84  # pixels a picture of a grid has at least: small ones are enlarged, without smoothing
WIDEST = 3000  # of a grid of many, if that leaves them their own size


def enlargement(height: int, columns: int = 1) -> int:
    """How many times pictures of that height are enlarged where so many lie side by side."""
    return max(1, min(-(-SIDE // height), WIDEST // (columns * height)))


def grid(
    images: Sequence[Pixels] | Pixels,
    columns: int | None = None,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    gap: int = 2,
    scale: int = 1,
) -> Image.Image:
    """Pictures of one size, row by row on white, with optional words at the left of each row, above each column and
    below each picture.

    Args:
        images: uint8, each (H, W), (H, W, 1) or (H, W, 3).
        columns: default: the side of the smallest square that holds them.
        captions: one a picture, cut where they are wider than it.
        scale: whole number by which each picture is enlarged, without smoothing.

    Raises:
        Refused: no images; labels that do not match the rows or columns, captions that do not match the pictures.
    """
    if not len(images):
        raise Refused("a grid needs at least one image")
    tiles = [as_picture(np.asarray(p)) for p in images]
    tiles = [t.resize((t.width * scale, t.height * scale), Image.Resampling.NEAREST) for t in tiles]
    columns = columns or int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    for labels, wanted, what in (
        (row_labels, rows, "row"), (column_labels, columns, "column"), (captions, len(tiles), "image")
    ):  # fmt: skip
        if labels is not None and len(labels) != wanted:
            raise Refused(f"the grid has {wanted} {what}s but {len(labels)} {what} labels")
    font: Any = ImageFont.load_default(size=14)
    left = gap + max((int(font.getlength(w)) + 8 for w in row_labels or ()), default=0)
    top = gap + (22 if column_labels else 0)
    below: Any = ImageFont.load_default(size=11)
    step_x, step_y = tiles[0].width + gap, tiles[0].height + gap + (15 if captions else 0)
    mode = "RGB" if any(t.mode == "RGB" for t in tiles) else "L"
    canvas = Image.new(mode, (left + columns * step_x, top + rows * step_y), "white")
    draw = ImageDraw.Draw(canvas)
    for i, tile in enumerate(tiles):
        canvas.paste(tile, (left + i % columns * step_x, top + i // columns * step_y))
    for i, words in enumerate(captions or ()):
        at = left + i % columns * step_x + tiles[0].width // 2, top + i // columns * step_y + tiles[0].height + 7
        draw.text(at, _cut(words, tiles[0].width, below), fill="black", font=below, anchor="mm")
    for r, words in enumerate(row_labels or ()):
        draw.text((gap + 2, top + r * step_y + tiles[0].height // 2), words, fill="black", font=font, anchor="lm")
    for c, words in enumerate(column_labels or ()):
        words = _cut(words, step_x, font)
        draw.text((left + c * step_x + (step_x - gap) // 2, gap + 11), words, fill="black", font=font, anchor="mm")
    return canvas


def stacked(sheets: Sequence[Image.Image], gap: int = 12) -> Image.Image:
    """Pictures one under another on white, each as it is.

    Raises:
        Refused: none.
    """
    if not sheets:
        raise Refused("a stack needs at least one picture")
    mode = "RGB" if any(s.mode == "RGB" for s in sheets) else "L"
    height = sum(s.height for s in sheets) + gap * (len(sheets) - 1)
    canvas = Image.new(mode, (max(s.width for s in sheets), height), "white")
    top = 0
    for sheet in sheets:
        canvas.paste(sheet, (0, top))
        top += sheet.height + gap
    return canvas


def _cut(words: str, width: int, font: Any) -> str:
    """The words, or as many letters of them as have room."""
    if font.getlength(words) <= width:
        return words
    kept = next((n for n in range(len(words), 0, -1) if font.getlength(words[:n] + "..") <= width), 0)
    return words[:kept] + ".." if kept else ""
