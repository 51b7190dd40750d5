"""How faithful an autoencoder is beside PCA of as many numbers: PSNR and FD of reconstructions of pictures never seen.

`python benchmarks/autoencoder.py AE TRAIN TEST [--count 10000] [--picture stages.png]`: PCA is fitted on TRAIN, both
reconstruct TEST. Also pictures of 64 x 64, each four of TEST side by side: the autoencoder takes them as they are; the
four are independent, so their covariance is one block for each, and their PCA is that of each of them. A line for each
goes to results/autoencoder.jsonl; --picture draws the stages of a few. "PCA of squares" keeps of each square of the
autoencoder's factor as many numbers as a latent has channels: a linear code whose latents are pictures of that shape.
--only: one of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import ddim
from ddim.data import Images, open_images
from ddim.metrics import Moments, distance_name, extractor, frechet, usual
from ddim.nets import Autoencoder
from ddim.pixels import from_uint8, grid, save_png, to_uint8
from ddim.uses import Reproduction

RESULTS = Path(__file__).parent / "results" / "autoencoder.jsonl"
AT_ONCE, SHOWN = 250, 8
Coder = Callable[[Tensor], Tensor]


def batches(images: Images, count: int, side: int = 1) -> Iterator[Tensor]:
    """Pictures in [-1, 1]; with side 2 four in one."""
    for first in range(0, count, AT_ONCE * side**2):
        x = from_uint8(images.pixels[first : min(first + AT_ONCE * side**2, count)])
        n, c, h, w = x.shape
        x = x[: n // side**2 * side**2].view(-1, side, side, c, h, w)
        yield x.permute(0, 3, 1, 4, 2, 5).reshape(-1, c, side * h, side * w)


def cut(x: Tensor, side: int) -> Tensor:
    """The squares of that side of each picture, a row each."""
    b, c, h, w = x.shape
    return x.view(b, c, h // side, side, w // side, side).permute(0, 2, 4, 1, 3, 5).reshape(-1, c * side**2)


def principal(images: Images, numbers: int, side: int) -> Coder:
    """To that many components of each square of that side of these pictures, and back."""
    total, outer, n = torch.zeros(1), torch.zeros(1), 0
    for x in batches(images, len(images)):
        flat = cut(x, side)
        total, outer, n = total + flat.sum(0).double(), outer + (flat.T @ flat).double(), n + len(flat)
    mean = total / n
    _, vectors = torch.linalg.eigh((outer / n - mean[:, None] * mean).float())
    first, mean = vectors[:, -numbers:], mean.float()

    def back(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        made = ((cut(x, side) - mean) @ first @ first.T + mean).view(b, h // side, w // side, c, side, side)
        return made.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)

    return back


def measured(images: Images, count: int, side: int, coder: Coder) -> dict[str, float]:
    """PSNR a picture, its standard error, and the distance of the features."""
    of = extractor(usual(images.shape[0]))
    psnr, seen, made = [], [], []
    for x in batches(images, count, side):
        y = coder(x).clamp(-1, 1)
        psnr.append(Reproduction.of(y, x).psnr)
        seen.append(of.features(x))
        made.append(of.features(y))
    every = torch.cat(psnr)
    distance = frechet(Moments.of(torch.cat(made)), Moments.of(torch.cat(seen)))
    return {
        "pictures": len(every), "psnr": float(every.mean()), "psnr_se": float(every.std()) / len(every) ** 0.5,
        distance_name(of.name): distance,
    }  # fmt: skip


def stages(images: Images, made: Autoencoder, pca: Coder, path: Path) -> None:
    """Pictures, the channels of their latents from -2 to 2, what comes back, and what comes back from PCA."""
    x = from_uint8(images.pixels[:SHOWN])
    z = made.encode(x)
    latents = (z / 2).repeat_interleave(made.factor, 2).repeat_interleave(made.factor, 3)
    rows = {"input": x} | {f"latent {k}": latents[:, k : k + 1].expand(-1, 3, -1, -1) for k in range(made.channels)}
    rows |= {"output": made.decode(z), "PCA": pca(x)}
    pixels = np.concatenate([to_uint8(part) for part in rows.values()])
    save_png(path, grid(pixels, SHOWN, scale=3, row_labels=list(rows)), {})


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("ae", "train", "test"):
        parser.add_argument(name)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--only", choices=("autoencoder", "PCA", "PCA of squares"))
    asked = parser.parse_args()
    made = ddim.model.load_autoencoder(asked.ae)
    train, test = (open_images(name, labels=False) for name in (asked.train, asked.test))
    numbers = int(np.prod(made.latent_shape(test.shape)))
    wanted = {"autoencoder", "PCA", "PCA of squares"} if asked.only is None else {asked.only}
    coders: dict[str, Coder] = {"autoencoder": lambda x: made.decode(made.encode(x))}
    if "PCA" in wanted or asked.picture is not None:
        coders["PCA"] = principal(train, numbers, test.shape[1])
    if "PCA of squares" in wanted:
        coders["PCA of squares"] = principal(train, made.channels, made.factor)
    count = min(asked.count, len(test))
    for side in (1, 2):
        for name in sorted(wanted):
            found: dict[str, Any] = {"coder": name, "side": side * test.shape[1], "numbers": numbers * side**2}
            found |= {"ae": made.identity} if name == "autoencoder" else {}
            found |= measured(test, count, side, coders[name])
            print(json.dumps(found), flush=True)
            with RESULTS.open("a") as file:
                file.write(json.dumps(found) + "\n")
    if asked.picture is not None:
        stages(test, made, coders["PCA"], asked.picture)


if __name__ == "__main__":
    main()
