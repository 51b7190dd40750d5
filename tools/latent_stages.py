"""The stages of latent diffusion in one picture: what an autoencoder keeps of real pictures, and a walk in its latents.

`python tools/latent_stages.py MODEL DATA OUT.png [--steps 20] [--columns 8]`. Latents are shown by their first three
channels as red, green and blue, -3 black and 3 full.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch.nn.functional import interpolate

import ddim
from ddim.data import few_images
from ddim.pixels import enlargement, grid, save_png, to_uint8

SHOWN = 3.0


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("model")
    made.add_argument("data")
    made.add_argument("out")
    made.add_argument("--steps", type=int, default=20)
    made.add_argument("--columns", type=int, default=8)
    args = made.parse_args()
    model, n = ddim.load(args.model), args.columns
    space, side = model.space, model.picture_shape[1:]

    def coloured(z: Tensor) -> Tensor:
        if z.shape[1] < 3:
            z = torch.cat([z, z[:, -1:].expand(-1, 3 - z.shape[1], -1, -1)], 1)
        return interpolate(z[:, :3] / SHOWN, size=side, mode="nearest").clamp(-1, 1)

    x = few_images(args.data, model.picture_shape, n)
    sampler = model.sampler(steps=args.steps, label="cycle" if model.num_classes else None)
    with torch.no_grad():
        z = space.encode(x)
        walk = list(sampler.trajectory(range(n)))
        half = walk[len(walk) // 2]
        rows = {
            "picture": x,
            "its latent": coloured(z),
            "decoded": space.decode(z),
            "x_T": coloured(sampler.start(range(n))),
            "half way": coloured(half.x),
            "x0 guessed there": space.decode(half.prediction.x0),
            "x_0": coloured(walk[-1].x),
            "decoded ": space.decode(walk[-1].x),
        }
    pixels = [p for row in rows.values() for p in to_uint8(row)]
    save_png(args.out, grid(pixels, n, scale=enlargement(side[0]), row_labels=[words.strip() for words in rows]))


if __name__ == "__main__":
    main()
