"""`ddim demo`: the promise of the method in one picture: ten latents, few steps beside a thousand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import tyro

import ddim
from ddim.cli import options, show

IMAGES = 10
RUNS = (("DDIM", 5, 0.0), ("DDIM", 10, 0.0), ("DDIM", 20, 0.0), ("DDIM", 50, 0.0), ("DDPM", 1000, 1.0))


@options.command
class Command(options.Quick, options.OfModel):
    """The same ten latents by DDIM at 5, 10, 20, 50 steps and by DDPM at 1000: seconds, network calls, picture."""

    model: tyro.conf.Positional[str] = options.DEFAULT
    out: Path = Path("out/demo")
    """Folder for demo.png; a picture of an earlier demo there is replaced."""
    seed: int = 0
    """The first of the ten seeds."""

    def run(self) -> None:
        model = ddim.load(self.model, device="auto")
        seeds = list(range(self.seed, self.seed + IMAGES))
        label = None if model.num_classes is None else [i % model.num_classes for i in range(IMAGES)]
        runs = [(name, min(steps, model.schedule.T), eta) for name, steps, eta in RUNS]
        rows: list[Any] = []
        figures: list[list[str]] = []
        took: list[float] = []
        with show.progress(sum(steps for _, steps, _ in runs), "network calls") as bar:
            calls = 0
            for name, steps, eta in runs:
                sampler = self.sampler(model, steps=steps, eta=eta, label=label)
                if not calls:
                    sampler.call(seeds)  # the first call pays for set-up that belongs to no row
                start = time.perf_counter()
                pictures, calls = self._walked(sampler, seeds, calls, bar)
                rows += pictures
                took.append(time.perf_counter() - start)
                figures.append([name, f"{eta:g}", str(steps), str(steps), f"{took[-1]:.2f}"])
        words = [f"{f[0]} {f[2]} steps, {f[3]} calls, {f[4]} s" for f in figures]
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "demo.png"
        show.save_sheet(path, rows, IMAGES, rows=words, scale=max(1, round(56 / model.shape[1])), gap=4)
        print(f"{IMAGES} images from the same {IMAGES} latents, one row a sampler, in {model.runs_in(self.precision)}:")
        print(show.table(["sampler", "eta", "steps", "network calls", "seconds"], figures))
        (few, quick, _), (many, slow, _) = runs[2], runs[-1]
        print(f"{quick}-step {few} is {took[-1] / took[2]:.1f} times faster here than {slow}-step {many}")
        print(path)

    def _walked(self, sampler: ddim.Sampler, seeds: list[int], calls: int, bar: Any) -> tuple[list[Any], int]:
        import torch

        with torch.no_grad():
            for step in sampler.trajectory(seeds):
                state, calls = step.x, calls + step.calls
                bar(calls)
        pictures = list(ddim.pixels.to_uint8(sampler.space.decode(state)))  # on the CPU: an accelerator is waited for
        return pictures, calls
