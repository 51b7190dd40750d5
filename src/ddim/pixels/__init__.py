"""Picture files, grids of pictures, and the way between pictures and tensors."""

from ddim.pixels.grids import enlargement, grid, stacked
from ddim.pixels.pictures import (
    SUFFIXES,
    Fit,
    Pixels,
    as_picture,
    as_pixels,
    fitted,
    from_uint8,
    open_image,
    png_of,
    read_image,
    refuse_broken,
    save_png,
    to_uint8,
)
from ddim.pixels.shown import Pictures, show
from ddim.pixels.space import LatentSpace, PixelSpace, Space

__all__ = [
    "SUFFIXES",
    "Fit",
    "LatentSpace",
    "Pictures",
    "PixelSpace",
    "Pixels",
    "Space",
    "as_picture",
    "as_pixels",
    "enlargement",
    "fitted",
    "from_uint8",
    "grid",
    "open_image",
    "png_of",
    "read_image",
    "refuse_broken",
    "save_png",
    "show",
    "stacked",
    "to_uint8",
]
