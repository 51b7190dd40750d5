"""`ddim reconstruct`: the paper's Table 2 on your images, naive and exact encoding side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import ddim
from ddim.cli import options, pictures, results, show, typed
from ddim.files import free_folder
from ddim.refused import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from ddim.cli.table2 import Reconstruction

FLOOR = 1e-16  # where the plot draws an error of exactly 0


@options.command
class Command(
    options.OnDevice, options.Exactly, options.Batched, options.Labelled, options.Spaced, options.ManySteps,
    options.Out, pictures.Started, pictures.OfData, options.OfModel,
):  # fmt: skip
    """Encode real images in S steps, decode them in S steps, and compare (the paper's Table 2), with the latents' law.

    MSE is per dimension on the [0, 1] scale, as in the paper; NFE counts network calls an image, both ways together.
    """

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where reconstruct.csv and reconstruct.png go; without it the table is only printed."""
    steps: str = "10,20,50,100,200,500,1000"
    n: Annotated[int, options.COUNT] = 100
    """How many images: the first COUNT of the data."""
    method: Annotated[str, tyro.conf.arg(metavar="M[,M..]")] = "naive,exact"
    """Methods, of naive, implicit, bdia and exact."""
    label: str | None = None
    """For class-conditional models: a class, or "data" for the labels of the data; else the class is left open."""
    batch_size: int = 50

    def run(self) -> None:
        self.refuse_no_batch()
        steps, methods = self.step_list(), [m.strip() for m in self.method.split(",")]
        if any(m not in ddim.uses.METHODS for m in methods):
            raise Refused(f"--method takes {', '.join(ddim.uses.METHODS)}, got {self.method!r}")
        if self.out is not None:
            free_folder(self.out)
        if self.n < 1:
            raise Refused(f"--count must be at least 1, got {self.n}")
        model = self.load()
        for s in steps:
            model.tau(s, self.spacing)  # what cannot be walked is refused before anything is made
        x, label = self._images(model)
        rows = []
        with show.progress(len(steps) * len(methods), "rows") as bar:
            for s in steps:
                sampler = self.sampler(model, steps=s, label=label)
                for method in methods:
                    rows.append(self._row(sampler, x, method))
                    bar(len(rows))
        where = f"{self.model}, spacing {typed.spacing_of(self.spacing, model)}, {model.runs_in(self.precision)}"
        print(f"{len(x)} images of {self.data}, {where}")
        print(show.table(rows[0].HEAD, [row.cells() for row in rows]))
        if not model.space.lossless:
            print("these rows are of the inversion, between latents (their own scale, 2 counted as the peak)")
            print(f"autoencoder alone, in pictures: {_fidelity(model, x, self.batch_size)}")
        if any(row.method == "exact" and row.coupled for row in rows):
            from ddim.cli.table2 import COUPLED

            print(COUPLED)
        if self.out is not None:
            results.in_folder(self.out, lambda place: write(place, rows))
            print(f"{self.out / 'reconstruct.csv'}, {self.out / 'reconstruct.png'}")

    def _images(self, model: ddim.Model) -> tuple[Tensor, dict[int, int] | None]:
        data = self.images(model)
        n = min(self.n, len(data))
        if self.label == "data" and data.labels is None:
            raise Refused(f"--label data: {self.data} has no labels")
        known = "" if data.labels is None else ",".join(map(str, data.labels[:n].tolist()))
        label = self.classes(model, range(n), known if self.label == "data" else None)
        return ddim.pixels.from_uint8(data.pixels[:n]).to(model.device), label

    def _row(self, sampler: ddim.Sampler, x: Tensor, method: Any) -> Reconstruction:
        from ddim.cli.table2 import row_of

        parts = []
        for i in range(0, len(x), self.batch_size):
            images = x[i : i + self.batch_size]
            images = images.double() if self.precision == "fp64" else images
            parts.append(sampler.encode(images, method, start=self.begins, seeds=range(i, i + len(images))))
        return row_of(ddim.Latents.join(parts), sampler.denoise.process.start(sampler.tau[0]))


def _fidelity(model: ddim.Model, x: Tensor, batch_size: int) -> ddim.uses.Reproduction:
    import torch

    with torch.no_grad():
        return ddim.uses.Reproduction.of(
            torch.cat([model.space.decode(model.space.encode(part)) for part in torch.split(x, batch_size)]), x
        )


def write(place: Path, rows: Sequence[Reconstruction]) -> None:
    """The table and its picture."""
    show.save_csv(place / "reconstruct.csv", rows[0].FILE_HEAD, [row.numbers() for row in rows])
    plot(place / "reconstruct.png", rows)


def plot(path: Path, rows: Sequence[Reconstruction]) -> None:
    """MSE against steps, a line a method."""
    title = "Reconstruction after encoding and decoding in S steps"
    with show.plot_against_steps(path, [row.steps for row in rows], "MSE per dimension, [0, 1] scale", title) as axes:
        for method in dict.fromkeys(row.method for row in rows):
            mine = [row for row in rows if row.method == method]
            axes.plot([r.steps for r in mine], [max(r.mse, FLOOR) for r in mine], marker="o", label=method)
