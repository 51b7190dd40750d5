"""A few images of a source, for a look at a model: only these are decoded, and nothing is cached."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ddim.data.sources import open_source
from ddim.pixels import as_pixels, fitted, from_uint8, read_image
from ddim.refused import Refused


def few_images(data: str, shape: tuple[int, int, int], n: int) -> Tensor:
    """Up to n images of a source, spread evenly over it, as float (n, C, H, W) in [-1, 1]; only these are decoded.

    Raises:
        Refused: no images there, or not readable.
    """
    source = open_source(data, labels=False)
    step = max(1, source.count // n)
    images = []
    for i, (name, raw, _) in enumerate(source.read()):
        if i % step or raw is None:
            continue
        try:
            images.append(_tensor(raw, shape))
        except Refused as error:
            raise Refused(str(error).replace("the image", name, 1)) from None
        if len(images) == n:
            break
    if not images:
        raise Refused(f"{data} holds no images")
    return torch.stack(images)


def _tensor(raw: Path | bytes | Image.Image, shape: tuple[int, int, int]) -> Tensor:
    if isinstance(raw, Image.Image):
        return from_uint8(as_pixels(fitted(raw, shape[1:]), shape[0]))
    image = read_image(raw, shape)
    return image[0] if image.ndim == 4 else image
