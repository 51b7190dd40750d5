"""The size of an OpenAI network's images: given, told by its attention, or that of the scripts' networks."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from ddim.checkpoints.families.openai.layout import Layout
from ddim.checkpoints.families.sides import doubted, levels_at, listed, refuse_misfit, sides_of
from ddim.checkpoints.settings import MAX_SIDE, whole
from ddim.refused import Refused
from ddim.stored import is_whole

SIZES = {
    (0.5, 1, 1, 2, 2, 4, 4): 512,
    (1, 1, 2, 2, 4, 4): 256,
    (1, 1, 2, 3, 4): 128,
    (1, 2, 3, 4): 64,
    (1, 2, 2, 2): 32,
}
PUBLISHED = ((16, 8), (32, 16, 8), (16,))  # where the published networks have attention; the first is the default


def image_size(flags: Mapping[str, Any], layout: Layout, where: str, notes: list[str]) -> int:
    """The side; a note where it was not given.

    Raises:
        Refused: not told by anything; or a size at which attention_resolutions would be on other levels.
    """
    at, attention = _resolutions(flags, layout, where), layout.attention
    told = [] if at is None else sides_of(attention, at)
    if flags.get("image_size") is not None:
        side = whole(flags, "image_size", 64, MAX_SIDE, where=where)
        if at is not None:
            refuse_misfit(side, attention, at, "image_size", where)
        else:
            doubted(side, attention, PUBLISHED, notes)
        return side
    if len(told) == 1:
        notes.append(f"image size {told[0]}: there attention_resolutions = {listed(at or ())} are the weights' levels")
        return told[0]
    usual = SIZES.get(tuple(w / layout.base for w in layout.widths))
    if usual is None or (any(attention) and all(levels_at(usual, p, len(attention)) != attention for p in PUBLISHED)):
        guess = sides_of(attention, PUBLISHED[0])
        by = f" ({guess[0]} if its attention is at 16 and 8, as by default in the scripts)" if len(guess) == 1 else ""
        raise Refused(f"{where}: the image size is not in the file; give it: `set` image_size=<side>{by}")
    notes.append(f"image size is not in the file: {usual} has these channel multipliers in the scripts")
    return usual


def _resolutions(flags: Mapping[str, Any], layout: Layout, where: str) -> tuple[int, ...] | None:
    """attention_resolutions as the scripts have them ("16,8", pixels); None where it is not given, or where it is the
    constructor's (2, 4), which counts halvings and says what the weights say."""
    value = flags.get("attention_resolutions")
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    numbers: tuple[Any, ...] = tuple(int(p) if isinstance(p, str) and p.strip().isdigit() else p for p in parts)
    if not all(is_whole(n, 1, MAX_SIDE) for n in numbers):
        raise Refused(f"{where}: attention_resolutions must be whole numbers and commas, got {reprlib.repr(value)}")
    if isinstance(value, (list, tuple)) and [2**i in numbers for i in range(len(layout.widths))] == layout.attention:
        return None
    return numbers
