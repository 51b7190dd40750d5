"""A model of latents against one of pixels: equal minutes of training, and what a picture costs then.

CIFAR-10 with its classes; both arms are the same preset under the recipe of `ddim train`, and are stopped by the
processor's clock of one thread. Quality is the Frechet distance by the bundled colour classifier to training pictures,
`--n` samples, deterministic, at several numbers of steps, beside the milliseconds a picture takes, decoding included.
`python benchmarks/latent_or_pixel.py DATA.parquet --autoencoder AE --minutes 4 [--arm latent]`: a line of
results/latent_or_pixel.jsonl for each arm and number of steps.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import ddim
from ddim.checkpoints import open_autoencoder
from ddim.data import Images, images_of, open_images
from ddim.jobs import Denoising, Plan, Recipe, fit, latent_data, new_state
from ddim.jobs.train.previews import averaged
from ddim.metrics import Moments, extractor, frechet

RESULTS = Path(__file__).parent / "results" / "latent_or_pixel.jsonl"
RECIPE = Recipe(schedule="cosine", min_snr_gamma=5.0, batch_size=32, lr=2e-3, warmup=100, flip=True, precision="bf16")


def trained(plan: Plan, minutes: float) -> tuple[ddim.Model, int]:
    """The averaged network after so many minutes of the processor, and its steps."""
    state = new_state(plan.recipe, plan.preset, plan.shape, len(plan.images.class_names or ()), "cpu")
    begun = time.process_time()
    for p in fit(state, plan.batches(), Denoising.of(plan.recipe), max_steps=1_000_000):
        if p.step % 100 == 0:
            print(f"step {p.step}, {time.process_time() - begun:.0f} s, loss {p.smooth_loss:.4f}", flush=True)
        if time.process_time() - begun > 60 * minutes:
            break
    return ddim.Model(plan.model(averaged(state))), state.step


def distance(pictures: Tensor, real: Moments) -> float:
    return frechet(Moments.of(extractor("colour").features(rounded(pictures))), real)


def rounded(x: Tensor) -> Tensor:
    return (x.float().clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1


def first(images: Images, n: int) -> Images:
    """The first n pictures as a data set of their own."""
    label = None if images.labels is None else torch.from_numpy(images.labels[:n].copy())
    return images if n >= len(images) else images_of(images.pixels[:n].copy(), label, name=images.report.source)


def pictures(images: Images, n: int) -> Tensor:
    return ddim.pixels.from_uint8(images.pixels[:n])


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("data")
    made.add_argument("--autoencoder", required=True)
    made.add_argument("--minutes", type=float, default=4.0)
    made.add_argument("--arm", choices=("latent", "pixel", "both"), default="both")
    made.add_argument("--preset", default="colour32")
    made.add_argument("--n", type=int, default=500)
    made.add_argument("--images", type=int, default=50_000, help="of the data, the first so many")
    made.add_argument("--steps", default="5,10,20,50")
    made.add_argument("--save", type=Path, help="keep the models here, as ARM/")
    args = made.parse_args()
    torch.set_num_threads(1)
    images, autoencoder = first(open_images(args.data), args.images), open_autoencoder(args.autoencoder)
    real = Moments.of(torch.cat([extractor("colour").features(x) for x in pictures(images, 10_000).split(100)]))
    data = latent_data(images, autoencoder, measured=True, flip=True, device="cpu")
    for arm in ("latent", "pixel") if args.arm == "both" else (args.arm,):
        own = data if arm == "latent" else None
        plan = Plan(Path(arm), images, args.preset, RECIPE, True, "", "cpu", latents=own)
        model, steps = trained(plan, args.minutes)
        if args.save is not None:
            model.save(args.save / arm)
        told = {"arm": arm, "minutes": args.minutes, "updates": steps, "preset": args.preset, "n": args.n}
        if own is not None:
            x = pictures(images, args.n)
            back = own.autoencoder.decode(own.autoencoder.encode(x))
            told |= {"latents": list(own.shape), "autoencoder alone": round(distance(back, real), 3)}
        for count in map(int, args.steps.split(",")):
            begun = time.process_time()
            x = model.sample(args.n, steps=count, label="cycle", precision="bf16")
            row = told | {
                "steps": count, "ms a picture": round(1000 * (time.process_time() - begun) / args.n, 2),
                "fd": round(distance(x, real), 3),
            }  # fmt: skip
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
