"""`ddim demo`: the promise of the method in one picture: ten latents, few steps beside a thousand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, NamedTuple

import tyro

import ddim
from ddim.cli import options, show
from ddim.cli.threads import unhindered

IMAGES = 10


class Promise(NamedTuple):
    """One row of the picture."""

    name: str
    steps: int
    eta: float
    student: str | None = None  # the bundled one whose own walk it is
    guidance: float = 1.0


FEW = (Promise("DDIM", 5, 0.0), Promise("DDIM", 10, 0.0), Promise("DDIM", 20, 0.0), Promise("DDIM", 50, 0.0))
THOUSAND = (*FEW, Promise("DDPM", 1000, 1.0))
FIFTY = (*FEW, Promise("DDPM", 50, 1.0))  # where a thousand would take minutes on a CPU
STUDENTS = (Promise("student", 1, 0.0, "mnist-1"), Promise("student", 4, 0.0, "mnist-4"))
GUIDED = Promise("guided DDIM", 20, 0.0, guidance=2.0)  # measured in docs/results.md
BUNDLED = {options.DEFAULT: (*STUDENTS, *THOUSAND), "cifar10": (GUIDED, *FIFTY)}


@options.command
class Command(options.Quick, options.OfModel):
    """The same ten latents by DDIM at 5, 10, 20, 50 steps and by DDPM: seconds, network calls, picture.

    Of the bundled digits also by students of one and four steps, made by `ddim distil`.
    With the bundled digits comes the bundled colour model, whose DDPM takes 50 steps: a thousand take long on a CPU.
    """

    model: tyro.conf.Positional[str] = options.DEFAULT
    out: Path = Path("out/demo")
    """Folder for demo.png; a picture of an earlier demo there is replaced."""
    seed: int = 0
    """The first of the ten seeds."""

    def run(self) -> None:
        plans = BUNDLED if self.model == options.DEFAULT else {self.model: THOUSAND}
        sheets = [self._part(ddim.load(name, device="auto"), name, walks) for name, walks in plans.items()]
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "demo.png"
        ddim.pixels.save_png(path, ddim.pixels.stacked(sheets))
        print(path)

    def _part(self, model: ddim.Model, name: str, walks: tuple[Promise, ...]) -> Any:
        """The rows of one model; prints its table."""
        seeds = list(range(self.seed, self.seed + IMAGES))
        label = None if model.num_classes is None else [i % model.num_classes for i in range(IMAGES)]
        walks = tuple(w._replace(steps=int(min(w.steps, model.most_steps))) for w in walks)
        samplers = [self._sampler(model, walk, label) for walk in walks]
        rows: list[Any] = []
        took: list[float] = []
        samplers[0].call(seeds)  # the first call pays for set-up that belongs to no row
        with (
            show.progress(sum(s.calls for s in samplers), f"network calls of {name}") as bar,
            unhindered(lambda: samplers[0].call(seeds)),
        ):
            calls = 0
            for walk, sampler in zip(walks, samplers, strict=True):
                if walk.student is not None:
                    sampler.call(seeds)
                start = time.perf_counter()
                pictures, calls = walked(sampler, seeds, calls, bar)
                rows += pictures
                took.append(time.perf_counter() - start)
        self._tell(model, name, walks, [s.calls for s in samplers], took)
        words = [f"{w.name} {w.steps} step{'s'[: w.steps - 1]}, {t:.2f} s" for w, t in zip(walks, took, strict=True)]
        scale = max(1, round(56 / model.picture_shape[1]))
        names = options.class_names(model)
        heads = [names[i] for i in label] if names and label else None
        return ddim.pixels.grid(rows, IMAGES, row_labels=words, column_labels=heads, scale=scale, gap=4)

    def _sampler(self, model: ddim.Model, walk: Promise, label: list[int] | None) -> ddim.Sampler:
        one = model if walk.student is None else ddim.load(walk.student, device="auto")
        return one.sampler(
            steps=walk.steps, eta=walk.eta, label=label, guidance=walk.guidance, precision=self.precision
        )

    def _tell(
        self, model: ddim.Model, name: str, walks: tuple[Promise, ...], calls: list[int], took: list[float]
    ) -> None:
        precision = model.runs_in(self.precision)
        print(f"{name}: {IMAGES} images from the same {IMAGES} latents, one row a sampler, in {precision}:")
        told = zip(walks, calls, took, strict=True)
        figures = [[w.name, f"{w.eta:g}", str(w.steps), str(n), f"{t:.2f}"] for w, n, t in told]
        print(show.table(["sampler", "eta", "steps", "network calls", "seconds"], figures))
        few, many = walks[-3], walks[-1]
        faster = f"{took[-1] / took[-3]:.1f} times faster here than {many.steps}-step {many.name}"
        print(f"{few.steps}-step {few.name} is {faster}")


def walked(sampler: ddim.Sampler, seeds: list[int], calls: int, bar: Any) -> tuple[list[Any], int]:
    """The pictures of one row, and the calls so far."""
    import torch

    with torch.no_grad():
        for step in sampler.trajectory(seeds):
            state, calls = step.x, calls + step.calls
            bar(calls)
    pictures = list(ddim.pixels.to_uint8(sampler.space.decode(state)))  # on the CPU: an accelerator is waited for
    return pictures, calls
