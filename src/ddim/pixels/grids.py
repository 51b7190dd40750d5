"""Many pictures on one canvas, with words beside and above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ddim.pixels.pictures import Pixels, as_picture
from ddim.refused import Refused


def grid(
    images: Sequence[Pixels] | Pixels,
    columns: int | None = None,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    gap: int = 2,
    scale: int = 1,
) -> Image.Image:
    """Pictures of one size, row by row on white, with optional words at the left of each row and above each column.

    Args:
        images: uint8, each (H, W), (H, W, 1) or (H, W, 3).
        columns: default: the side of the smallest square that holds them.
        scale: whole number by which each picture is enlarged, without smoothing.

    Raises:
        Refused: no images; labels that do not match the rows or columns.
    """
    if not len(images):
        raise Refused("a grid needs at least one image")
    tiles = [as_picture(np.asarray(p)) for p in images]
    tiles = [t.resize((t.width * scale, t.height * scale), Image.Resampling.NEAREST) for t in tiles]
    columns = columns or int(np.ceil(np.sqrt(len(tiles))))
    rows = -(-len(tiles) // columns)
    for labels, wanted, what in ((row_labels, rows, "row"), (column_labels, columns, "column")):
        if labels is not None and len(labels) != wanted:
            raise Refused(f"the grid has {wanted} {what}s but {len(labels)} {what} labels")
    font: Any = ImageFont.load_default(size=14)
    left = gap + max((int(font.getlength(w)) + 8 for w in row_labels or ()), default=0)
    top = gap + (22 if column_labels else 0)
    step_x, step_y = tiles[0].width + gap, tiles[0].height + gap
    mode = "RGB" if any(t.mode == "RGB" for t in tiles) else "L"
    canvas = Image.new(mode, (left + columns * step_x, top + rows * step_y), "white")
    draw = ImageDraw.Draw(canvas)
    for i, tile in enumerate(tiles):
        canvas.paste(tile, (left + i % columns * step_x, top + i // columns * step_y))
    for r, words in enumerate(row_labels or ()):
        draw.text((gap + 2, top + r * step_y + (step_y - gap) // 2), words, fill="black", font=font, anchor="lm")
    for c, words in enumerate(column_labels or ()):
        draw.text((left + c * step_x + (step_x - gap) // 2, gap + 11), words, fill="black", font=font, anchor="mm")
    return canvas
