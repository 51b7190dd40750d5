"""A few images of a source, for a look at a model: only these are decoded, and nothing is cached."""

from __future__ import annotations

from collections import Counter

import torch
from PIL import Image
from torch import Tensor

from ddim.data.sources import open_source
from ddim.pixels import Fit, as_pixels, fitted, from_uint8, open_image
from ddim.refused import Refused


def few_images(
    data: str, shape: tuple[int, int, int], n: int, fit: Fit = "crop", inner: tuple[int, int] | None = None,
    *, skip_unreadable: bool = False, seen: Counter[tuple[int, int]] | None = None,
) -> Tensor:  # fmt: skip
    """Up to n images of a source, spread evenly over it, as float (n, C, H, W) in [-1, 1]; only these are decoded.

    Args:
        fit, inner: how other sizes are brought to that shape: see `ddim.pixels.fitted`.
        skip_unreadable: leave out files that cannot be read, instead of refusing.
        seen: takes the sizes (H, W) they have as files.

    Raises:
        Refused: no images there, or not readable.
    """
    source = open_source(data)
    step = max(1, source.count // n)
    images = []
    for i, (name, raw, _) in enumerate(source.read()):
        if i % step or raw is None:
            continue
        try:
            picture = raw if isinstance(raw, Image.Image) else open_image(raw)
            images.append(from_uint8(as_pixels(fitted(picture, shape[1:], fit, inner), shape[0])))
        except Refused as error:
            if skip_unreadable:
                continue
            raise Refused(str(error).replace("the image", name, 1)) from None
        if seen is not None:
            seen[picture.height, picture.width] += 1
        if len(images) == n:
            break
    if not images:
        raise Refused(f"{data} holds no images")
    return torch.stack(images)
