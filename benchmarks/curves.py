"""Loss after equal images: ddim in fp32 and bf16 beside diffusers' recipe, on scikit-learn's digits.

The same network, start, objective (eps), batch, learning rate and warm-up (diffusers' begins one step later); noise,
order and optimizer details are each trainer's own. Every 50 steps the weights (not their average) are read in fp32 on
a fixed set: 256 held-out digits, t spread over 1..1000, fixed eps. Three seeds of training.
`python benchmarks/curves.py [--quick]`
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import options, parser, save, unet
from pictures import write
from torch import nn
from trainers import DiffusersRecipe, Ours, Task, Trainer

from ddim.pixels import from_uint8
from ddim.process import Schedule, diffuse

SHAPE, HELD, BATCH = (1, 8, 8), 256, 32
LR, WARMUP = 5e-4, 100
TRAINERS: dict[str, Callable[[Task], Trainer]] = {
    "ddim fp32": lambda task: Ours(task, "fp32"),
    "ddim bf16": lambda task: Ours(task, "bf16"),
    "diffusers recipe fp32": DiffusersRecipe,
}


def digits() -> Any:
    from sklearn.datasets import load_digits

    return np.round(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]


class Held:
    """The eps loss of a network's weights on a fixed set, always in fp32 whatever the trainer's precision."""

    def __init__(self, pixels: Any) -> None:
        g, self.schedule = torch.Generator().manual_seed(0), Schedule.linear(1000)
        x0 = from_uint8(pixels)
        self.t = torch.linspace(1, 1000, len(x0)).round().long()[torch.randperm(len(x0), generator=g)]
        self.eps = torch.randn(x0.shape, generator=g)
        self.x_t = diffuse(x0, self.eps, self.t, self.schedule)
        self.net = unet("digits", SHAPE)

    @torch.no_grad()
    def loss(self, trained: nn.Module) -> float:
        self.net.load_state_dict(trained.state_dict())
        out = self.net(self.x_t, self.t - 1).sample
        return float((out - self.eps).square().mean())


def curve(make: Callable[[Task], Trainer], task: Task, held: Held, steps: int, every: int) -> list[list[float]]:
    """[images seen, held-out loss] every `every` steps."""
    trainer = make(task)
    points = [[0.0, held.loss(trainer.network)]]
    for done in range(every, steps + 1, every):
        trainer.steps(every)
        points.append([float(done * task.batch), held.loss(trainer.network)])
    return points


def main() -> None:
    args = options(parser(__doc__))
    steps, every, seeds = (4, 2, 1) if args.quick else (700, 50, 3)
    pixels = digits()
    held, runs = Held(pixels[-HELD:]), []
    with tempfile.TemporaryDirectory() as temporary:
        folder = write(pixels[:-HELD], Path(temporary) / "digits")
        for seed in range(seeds):
            for name, make in TRAINERS.items():
                task = Task(folder, "digits", SHAPE, BATCH, seed, LR, WARMUP)
                points = curve(make, task, held, steps, every)
                runs.append({"trainer": name, "seed": seed, "points": points})
                print(f"seed {seed}, {name}: " + " ".join(f"{loss:.4f}" for _, loss in points), flush=True)
    last = {name: [r["points"][-1][1] for r in runs if r["trainer"] == name] for name in TRAINERS}
    final = {k: {"mean": statistics.mean(v), "min": min(v), "max": max(v)} for k, v in last.items()}
    print(f"after {steps * BATCH} images: " + ", ".join(f"{k} {v['mean']:.4f}" for k, v in final.items()), flush=True)
    task_of = {"data": "digits", "held_out": HELD, "batch": BATCH, "lr": LR, "warmup": WARMUP, "steps": steps}
    save("curves", {**task_of, "runs": runs, "final": final}, args.quick)


if __name__ == "__main__":
    main()
