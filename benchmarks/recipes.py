"""Which recipe is best on a short budget: one choice at a time changed from a base, equal images, an equal network.

CIFAR-10 with its classes, by `fit` and `Denoising` as `ddim train` runs them; where a choice costs time (depth, width)
the images are fewer in proportion. Quality is the Frechet distance by the bundled colour classifier to training images,
`--n` samples, deterministic, `--steps` steps. Every run is a line of results/recipes.jsonl: a second call goes on where
the first stopped. `python benchmarks/recipes.py DATA.parquet [--images 32000] [--seeds 0,1]`
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddim.data import Batches, Images, open_images
from ddim.denoise import Clip, NetworkDenoiser
from ddim.jobs import Denoising, Recipe, fit
from ddim.jobs.train import state_of
from ddim.metrics import Moments, extractor, fidelity, frechet
from ddim.nets import DiffusersNetwork, Ema, torch_randomness
from ddim.process import Objective, noise, tau
from ddim.solve import DDIM, sample

CLASSES, EVERY = 10, 100
RESULTS = Path(__file__).parent / "results" / "recipes.jsonl"
HALF_LIVES = (0.02, 0.05, 0.1, 0.2)  # of the averages, in parts of the run


@dataclass(frozen=True)
class Trial:
    """A recipe, a network and where the times are drawn. cost: of a step, the base's being 1."""

    recipe: Recipe
    channels: tuple[int, ...] = (16, 48, 96)
    layers: int = 1
    objective: Objective = field(default_factory=lambda: Objective("v"))
    law: str = "uniform"
    decay: bool = True
    cost: float = 1.0
    half_lives: tuple[float, ...] = field(default=HALF_LIVES[1:2])


BASE = Trial(Recipe(prediction="v", schedule="cosine", batch_size=32, lr=3e-3, flip=True, precision="bf16", ema=0.0))


def changed(**choices: Any) -> Trial:
    recipe = replace(BASE.recipe, **choices)
    return replace(BASE, recipe=recipe, objective=recipe.objective())


@dataclass(frozen=True)
class SnrPlusOne(Objective):
    """SNR + 1 on x0: the weight under which the x0 error is the v error."""

    def weight(self, level: Any) -> Tensor:
        noise2 = torch.as_tensor(level.noise, dtype=torch.float64) ** 2
        return 1.0 / noise2


@dataclass(frozen=True)
class Even(Objective):
    """1/(SNR + 1) on v: the weight under which the v error is the x0 error."""

    def weight(self, level: Any) -> Tensor:
        return torch.as_tensor(level.noise, dtype=torch.float64) ** 2


TRIALS: dict[str, Trial] = {
    "v, cosine, lr 3e-3, batch 32, flips": BASE,
    "lr 1e-2": changed(lr=1e-2),
    "batch 16": changed(batch_size=16),
    "eps": changed(prediction="eps"),
    "EDM's F, log-normal times": replace(BASE, objective=Objective("edm"), law="lognormal"),
    "linear schedule": changed(schedule="linear"),
    "x0, SNR + 1": replace(BASE, objective=SnrPlusOne("x0")),
    "v, min-SNR 5": changed(min_snr_gamma=5.0),
    "v, min-SNR 5, batch 16": changed(min_snr_gamma=5.0, batch_size=16),
    "v, min-SNR 1": changed(min_snr_gamma=1.0),
    "v, 1/(SNR + 1)": replace(BASE, objective=Even("v")),
    "v, log-normal times": replace(BASE, law="lognormal"),
    "x0, uniform": changed(prediction="x0"),
    "EDM's F, uniform times": replace(BASE, objective=Objective("edm")),
    "no flips": changed(flip=False),
    "learning rate kept": replace(BASE, decay=False),
    "eps, min-SNR 5": changed(prediction="eps", min_snr_gamma=5.0),
    "deeper and narrower": replace(BASE, channels=(16, 40, 72), layers=2, cost=150.8 / 144.0),
    "wider, fewer images": replace(BASE, channels=(16, 64, 128), cost=150.8 / 115.7),
    "batch 64": changed(batch_size=64),
    "lr 1e-3": replace(changed(lr=1e-3), half_lives=HALF_LIVES),
    "lr 3e-4": changed(lr=3e-4),
    "lr 1e-3, eps": changed(lr=1e-3, prediction="eps"),
    "lr 1e-3, batch 64": changed(lr=1e-3, batch_size=64),
    "lr 1e-3, batch 16": changed(lr=1e-3, batch_size=16),
}


def network(trial: Trial, seed: int) -> DiffusersNetwork:
    from diffusers import UNet2DModel

    deep = len(trial.channels)
    with torch_randomness(seed, "weights"):
        unet = UNet2DModel(
            sample_size=32, in_channels=3, out_channels=3, block_out_channels=trial.channels,
            layers_per_block=trial.layers, norm_num_groups=8, attention_head_dim=8 if trial.layers > 1 else 32,
            num_class_embeds=CLASSES + 1,
            down_block_types=(*("DownBlock2D",) * (deep - 1), "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", *("UpBlock2D",) * (deep - 1)),
        )  # fmt: skip
    return DiffusersNetwork(unet, CLASSES)


def train(
    trial: Trial, seed: int, images: Images, n_images: int, name: str
) -> tuple[nn.Module, dict[float, Ema], float]:
    steps = round(n_images / trial.cost / trial.recipe.batch_size)
    recipe = replace(trial.recipe, seed=seed, warmup=steps // 10, lr_decay_steps=steps if trial.decay else None)
    state = state_of(network(trial, seed), recipe, "cpu")
    loss = Denoising(trial.objective, recipe.noise_schedule(), recipe.label_dropout, law=trial.law)
    averages = {h: Ema(state.unwrapped, 0.5 ** (1 / (h * steps))) for h in trial.half_lives}
    batches = Batches(images, recipe.batch_size, seed, flip=recipe.flip, labelled=True)
    begun = time.process_time()
    for p in fit(state, batches, loss, max_steps=steps):
        for e in averages.values():
            e.update(state.unwrapped)
        if p.step % EVERY == 0:
            print(f"  {name}, seed {seed}: {p.step}/{steps}, loss {p.smooth_loss:.4f}", flush=True)
    return state.unwrapped.eval(), averages, time.process_time() - begun


@torch.no_grad()
def measured(
    network: nn.Module, trial: Trial, n: int, steps: int, real: tuple[Any, Moments, Tensor]
) -> dict[str, float]:
    """Frechet distance, agreement with the class that was asked for, precision and recall of n samples."""
    extractor, moments, features = real
    denoise = NetworkDenoiser(network, trial.recipe.noise_schedule(), trial.objective.prediction)
    read, hit = [], 0
    for first in range(0, n, 100):
        seeds = list(range(first, min(first + 100, n)))
        label = torch.tensor([s % CLASSES for s in seeds])
        with torch.autocast("cpu", torch.bfloat16):
            x = sample(
                Clip(denoise),
                noise(seeds, (3, 32, 32)),
                tau(1000, steps, "uniform"),
                solver=DDIM(),
                label=label,
                seeds=seeds,
            )
        f, logits = extractor.both((x.float().clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1)
        read.append(f)
        hit += int((logits.argmax(1) == label).sum())
    made = torch.cat(read)
    near = fidelity(features[:4000], made)
    return {
        "fd": frechet(Moments.of(made), moments),
        "agreement": hit / n,
        "precision": near.precision,
        "recall": near.recall,
    }


def reference(images: Images, n: int) -> tuple[Any, Moments, Tensor]:
    reads = extractor("colour")
    batches = Batches(images, 100, 0, flip=False, labelled=False)
    features = torch.cat([reads.features(batches(i, slice(0, 100)).x0) for i in range(n // 100)])
    return reads, Moments.of(features), features


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("data")
    made.add_argument("--images", type=int, default=32_000)
    made.add_argument("--seeds", default="0,1")
    made.add_argument("--n", type=int, default=1000)
    made.add_argument("--steps", type=int, default=20)
    args = made.parse_args()
    torch.set_num_threads(1)
    images = open_images(Path(args.data))
    real = reference(images, 10_000)
    RESULTS.parent.mkdir(exist_ok=True)
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    done = {(r["name"], r["seed"], r["images"]) for r in map(json.loads, lines)}
    for seed in map(int, args.seeds.split(",")):
        for name, trial in TRIALS.items():
            if (name, seed, args.images) in done:
                continue
            net, averages, seconds = train(trial, seed, images, args.images, name)
            row: dict[str, Any] = {"name": name, "seed": seed, "images": args.images, "cpu_seconds": round(seconds, 1)}
            for half_life, ema in averages.items():
                with ema.applied(net):
                    row[f"ema {half_life:g}"] = measured(net, trial, args.n, args.steps, real)
            with RESULTS.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


if __name__ == "__main__":
    main()
