"""Images for the training benchmarks: a folder of PNGs that every trainer reads, made from a seed or from --data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def synthetic(n: int, shape: tuple[int, int, int], seed: int = 0) -> Pixels:
    """Soft discs on gradients, uint8 (n, H, W, C): not noise, and nothing from outside."""
    (c, h, w), g = shape, np.random.default_rng(seed)
    y, x = np.mgrid[0:h, 0:w] / [[[max(h - 1, 1)]], [[max(w - 1, 1)]]]
    made = np.empty((n, h, w, c))
    for i in range(n):
        slope, base = g.uniform(-0.5, 0.5, (2, c)), g.uniform(0.2, 0.8, c)
        picture = base + slope[0] * x[..., None] + slope[1] * y[..., None]
        for _ in range(g.integers(1, 4)):
            (cx, cy), radius, colour = g.uniform(0.2, 0.8, 2), g.uniform(0.1, 0.35), g.uniform(0, 1, c)
            inside = 1 / (1 + np.exp((np.hypot(x - cx, y - cy) - radius) * 40))[..., None]
            picture = picture * (1 - inside) + colour * inside
        made[i] = picture
    return (made.clip(0, 1) * 255).round().astype(np.uint8)


def from_data(data: str, n: int, shape: tuple[int, int, int]) -> Pixels:
    """The first n images of a folder or Parquet file, at that shape."""
    from ddim.data import open_images

    return np.array(open_images(data, size=shape[1:], channels=shape[0]).pixels[:n])


def write(pixels: Pixels, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for i, p in enumerate(pixels):
        Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p).save(folder / f"{i:05d}.png")
    return folder
