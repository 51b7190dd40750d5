"""Are latents N(0, I)? The tables of docs/latents.md: real and generated images, by what `exact` does with them.

    python benchmarks/latent_law.py MODEL DATA [--n 200] [--steps 20] [--cases real,start,dequantised,bare,generated]

real: as they are. start: `start` at the first level. dequantised: uniform noise of one grey level. bare: taken for
states at the first level, without its noise. generated: made from seeds 0.. on the same times. A line a case: images
with one state on the times asked for, on finer ones, with two states; worst round trip, calls, the law of all latents.
"""

from __future__ import annotations

import argparse

import torch

from ddim import Latents, load
from ddim.data import open_images
from ddim.pixels import from_uint8
from ddim.process import generator
from ddim.uses import HEAD, encode, law

BATCH = 25


def dequantised(x: torch.Tensor, places: list[int]) -> torch.Tensor:
    """Uniform noise of one grey level, a function of the image's place."""
    noise = [torch.from_numpy(generator(i, "dequantise").random(tuple(x.shape[1:]))) for i in places]
    return x + ((torch.stack(noise) - 0.5) / 127.5).to(x)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--cases", default="real,start,dequantised,bare,generated")
    args = parser.parse_args()
    model = load(args.model)
    channels, *size = model.picture_shape
    data = open_images(args.data, size=tuple(size), channels=channels)
    first = model.process.first
    print("case", "asked", "finer", "coupled", "worst dB", "NFE", *HEAD, sep=" | ")
    for case in args.cases.split(","):
        parts = []
        for i in range(0, args.n, BATCH):
            places = list(range(i, min(i + BATCH, args.n)))
            label = dict(zip(places, data.labels[places].tolist(), strict=True)) if model.num_classes else None
            sampler = model.sampler(steps=args.steps, label=label)
            x = sampler.sample(places) if case == "generated" else from_uint8(data.pixels[places])
            x = dequantised(x, places) if case == "dequantised" else x
            if case == "bare":
                told = sampler.conditions(places)
                parts.append(encode(sampler.bare, x, (*sampler.tau[:-2], first), conditions=told))
            else:
                parts.append(sampler.encode(x, start=first if case == "start" else None, seeds=places))
            z = Latents.join(parts)
            road = z.certificate.road
            counts = [int((road == 0).sum()), int((road > 0).sum()), int((road < 0).sum())]
            worst, nfe = float(z.certificate.psnr.min()), float(z.certificate.nfe.double().mean())
            end = "\n" if len(z) == args.n else "\r"
            print(case, *counts, f"{worst:.1f}", f"{nfe:.0f}", *law(z.x_T).row(), sep=" | ", end=end, flush=True)


if __name__ == "__main__":
    main()
