"""What `ddim likelihood` found, in words and as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ddim

if TYPE_CHECKING:
    from ddim.jobs import Budget

SHOWN = 8  # pictures of each row of the overview


def told(found: Budget, n: int, tolerance: float) -> str:
    """The mean of n images, and where its error comes from."""
    upright = found.likelier_upright
    turned = "" if upright is None else f"; {100 * upright:.1f}% of them are likelier than the same upside down"
    probes = f"{found.probes:.1f} probes an image" if found.probes else "exact"
    return (
        f"{found.bits:.4f} bits a dimension, mean of {n} images{turned}\n"
        f"its error: finite sample {found.sample:.2g} (with the next two in it), trace {found.trace:.2g} ({probes}), "
        f"dequantisation {found.dequantisation:.2g}; "
        f"solver {found.solver:.2g} (tolerance {tolerance:g}, against a tenth)"
    )


def overview(path: Path, pixels: Any, each: Mapping[int, float]) -> None:
    """The most and the least likely pictures, each with its bits."""
    order = sorted(each, key=lambda place: each[place])
    few = [*order[:SHOWN], *order[max(SHOWN, len(order) - SHOWN) :]]
    words = [f"{each[place]:.2f}" for place in few]
    rows_are = ["most likely", "least likely"] if len(few) > SHOWN else None
    scale = ddim.pixels.enlargement(pixels.shape[1], SHOWN)
    grid = ddim.pixels.grid(pixels[few], SHOWN, row_labels=rows_are, captions=words, scale=scale)
    ddim.pixels.save_png(path, grid)
