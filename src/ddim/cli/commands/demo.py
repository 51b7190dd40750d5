"""`ddim demo`: the promise of the method in one picture: ten latents, few steps beside a thousand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from ddim.cli.show import progress, table
from ddim.model import DEFAULT, load
from ddim.pixels import grid, save_png, to_uint8
from ddim.process import noise
from ddim.solve import DDIM, step_noise, trajectory

IMAGES = 10
RUNS = (("DDIM", 5, 0.0), ("DDIM", 10, 0.0), ("DDIM", 20, 0.0), ("DDIM", 50, 0.0), ("DDPM", 1000, 1.0))


@dataclass(frozen=True)
class Command:
    """The same ten latents by DDIM at 5, 10, 20, 50 steps and by DDPM at 1000: seconds, network calls, picture."""

    model: tyro.conf.Positional[str] = DEFAULT
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    out: Path = Path("out/demo")
    """Folder for demo.png; a picture of an earlier demo there is replaced."""
    seed: int = 0
    """The first of the ten seeds."""

    def run(self) -> None:
        model = load(self.model, device="auto")
        seeds = list(range(self.seed, self.seed + IMAGES))
        x_T = noise(seeds, model.shape).to(model.device)
        classes = None if model.num_classes is None else [i % model.num_classes for i in range(IMAGES)]
        denoise = model.denoiser(label=model.labels(classes, IMAGES))
        runs = [(name, min(steps, model.schedule.T), eta) for name, steps, eta in RUNS]
        rows: list[Any] = []
        figures: list[list[str]] = []
        took: list[float] = []
        with torch.no_grad(), progress(sum(steps for _, steps, _ in runs), "network calls") as bar:
            denoise(x_T, 1)  # the first call pays for set-up that belongs to no row
            calls = 0
            for name, steps, eta in runs:
                start, x = time.perf_counter(), x_T
                walk = trajectory(denoise, DDIM(eta), model.tau(steps), x_T, step_noise(seeds, x_T))
                for state in walk:
                    x, calls = state.x, calls + 1
                    bar(calls)
                rows += list(to_uint8(model.space.decode(x)))  # on the CPU: an accelerator is waited for here
                took.append(time.perf_counter() - start)
                figures.append([name, f"{eta:g}", str(steps), str(steps), f"{took[-1]:.2f}"])
        labels = [f"{f[0]} {f[2]} steps, {f[3]} calls, {f[4]} s" for f in figures]
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "demo.png"
        scale = max(1, round(56 / model.shape[1]))
        save_png(path, grid(rows, IMAGES, row_labels=labels, scale=scale, gap=4))
        print(f"{IMAGES} images from the same {IMAGES} latents, one row a sampler:")
        print(table(["sampler", "eta", "steps", "network calls", "seconds"], figures))
        (few, quick, _), (many, slow, _) = runs[2], runs[-1]
        print(f"{quick}-step {few} is {took[-1] / took[2]:.1f} times faster here than {slow}-step {many}")
        print(path)
