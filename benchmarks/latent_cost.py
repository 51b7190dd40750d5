"""What a picture of 64, 128 and 256 pixels costs in pixels and in latents: random weights, one thread, its own clock.

Networks of about 50M weights in the format that `ddim sample` takes; autoencoders of the sizes of Stable Diffusion's
(84M, factor 8) and of TAESD (2.4M), in fp32. `python benchmarks/latent_cost.py [--sides 64,128,256] [--steps 20]`: a
line of results/latent_cost.jsonl for each. With `--memory 512`: the peak of resident memory while `--n` pictures of
that side are decoded, encoded and sampled, in a process that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch

import ddim
from ddim.checkpoints import Checkpoint
from ddim.nets import Autoencoder, DiffusersNetwork, build, torch_randomness

RESULTS = Path(__file__).parent / "results" / "latent_cost.jsonl"
PRESETS = {64: "64", 128: "128", 256: "128"}  # of pixels; latents, of 8, 16 and 32, take the first


def large() -> Autoencoder:
    """Of the size of Stable Diffusion's."""
    return Autoencoder(diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ).eval())  # fmt: skip


def small() -> Autoencoder:
    """Of the size of TAESD."""
    return Autoencoder(diffusers.AutoencoderTiny().eval())


def seconds(of: Callable[[], Any], least: float = 2.0, most: int = 10) -> float:
    """Of the processor's clock, the least of a few calls after one that warms up."""
    of()
    took: list[float] = []
    while not took or (sum(took) < least and len(took) < most):
        begun = time.process_time()
        of()
        took.append(time.process_time() - begun)
    return min(took)


def model_of(preset: str, shape: tuple[int, int, int], autoencoder: Autoencoder | None = None) -> ddim.Model:
    network = DiffusersNetwork(build(preset, shape=shape)).eval()
    about = ("v", shape, "ddim", "random weights", "")
    return ddim.Model(Checkpoint(network, ddim.Schedule.cosine(1000), *about, clips=False, autoencoder=autoencoder))


def call(preset: str, shape: tuple[int, int, int]) -> float:
    """Of one network call on one picture."""
    model = model_of(preset, shape)
    denoise, x = model.denoiser(clip=False, precision="auto"), ddim.noise([0], shape)
    return seconds(lambda: denoise(x, 500))


def put(row: dict[str, Any]) -> None:
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(row, flush=True)


def peak() -> float:
    """GiB of resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@torch.no_grad()
def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--sides", default="64,128,256")
    made.add_argument("--steps", type=int, default=20)
    made.add_argument("--memory", type=int)
    made.add_argument("--n", type=int, default=2)
    args = made.parse_args()
    torch.set_num_threads(1)
    with torch_randomness(0, "weights"):
        coders = {"as Stable Diffusion's": large(), "as TAESD": small()}
    if args.memory:
        own, before = coders["as Stable Diffusion's"], peak()
        shape = (4, args.memory // 8, args.memory // 8)
        x = own.decode(ddim.noise(range(args.n), shape))
        decoding = peak()
        own.encode(x)
        encoding = peak()
        model_of(PRESETS[64], shape, own).sample(args.n, steps=2, precision="auto")
        row = {"side": args.memory, "n": args.n, "GiB before": before, "decoding": decoding, "encoding": encoding}
        put(row | {"sampling": peak()})
        return
    for side in map(int, args.sides.split(",")):
        each = call(PRESETS[side], (3, side, side))
        put({"side": side, "in": "pixels", "s a call": each, "s a picture": args.steps * each})
        shape = (4, side // 8, side // 8)
        each, z = call(PRESETS[64], shape), ddim.noise([0], shape)
        for name, own in coders.items():
            decoding = seconds(lambda own=own, z=z: own.decode(z))  # type: ignore[misc]
            row = {"side": side, "in": f"latents, {name}", "s a call": each, "s to decode": decoding}
            put(row | {"s a picture": args.steps * each + decoding})


if __name__ == "__main__":
    main()
