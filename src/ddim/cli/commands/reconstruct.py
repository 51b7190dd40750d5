"""`ddim reconstruct`: the paper's Table 2 on your images, naive and exact encoding side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import torch
import tyro

from ddim.cli.latent_common import labels_of, numbers, plot_against_steps, save_csv
from ddim.cli.show import new_folder, progress, table
from ddim.data import open_images
from ddim.model import Model, load
from ddim.pixels import from_uint8
from ddim.refused import Refused
from ddim.uses import HEAD, Latents, Law, law

Method = Literal["naive", "implicit", "bdia", "exact"]
FLOOR = 1e-16  # where the plot draws an error of exactly 0
COLUMNS = ("S", "method", "MSE [0,1]", "PSNR mean", "PSNR min", "solved", "NFE", *HEAD)


class Row(NamedTuple):
    """One number of steps by one method, over all images."""

    steps: int
    method: str
    mse: float
    psnr: float
    worst: float
    solved: float
    nfe: float
    law: Law

    def cells(self) -> list[str]:
        solved = "" if self.method in ("naive", "bdia") else f"{100 * self.solved:.1f}%"
        return [
            str(self.steps), self.method, f"{self.mse:.2e}", f"{self.psnr:.1f}", f"{self.worst:.1f}", solved,
            f"{self.nfe:.0f}", *self.law.row(),
        ]  # fmt: skip

    def numbers(self) -> list[Any]:
        w = self.law
        measured = [w.mean, w.variance, w.norm, w.kurtosis, w.correlation]
        return [self.steps, self.method, self.mse, self.psnr, self.worst, self.solved, self.nfe, *measured]


@dataclass(frozen=True)
class Command:
    """Encode real images in S steps, decode them in S steps, and compare (the paper's Table 2), with the latents' law.

    MSE is per dimension on the [0, 1] scale, as in the paper; NFE counts network calls an image, both ways together.
    """

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    data: tyro.conf.Positional[str]
    """Real images: a folder, a Parquet file, a hub id."""
    steps: str = "10,20,50,100,200,500,1000"
    """Numbers of steps, as "10,20,50"."""
    n: int = 100
    """How many images: the first N of the data."""
    method: Annotated[str, tyro.conf.arg(metavar="M[,M..]")] = "naive,exact"
    """Methods, of naive, implicit, bdia and exact."""
    spacing: str = "uniform"
    """Which steps; see `ddim sample --help`."""
    label: str | None = None
    """For class-conditional models: a class, or "data" for the labels of the data; else the class is left open."""
    batch_size: int = 50
    """Images at a time."""
    precision: Literal["fp32", "fp64"] = "fp32"
    """Number format of the network."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where reconstruct.csv and reconstruct.png go; without it the table is only printed."""

    def run(self) -> None:
        steps = numbers(self.steps, "--steps")
        methods = [m.strip() for m in self.method.split(",")]
        wrong = [m for m in methods if m not in get_args(Method)]
        if wrong or not steps:
            raise Refused(f"--method takes {', '.join(get_args(Method))}, got {self.method!r}; --steps {self.steps!r}")
        if self.n < 1 or self.batch_size < 1:
            raise Refused(f"--n and --batch-size must be at least 1, got {self.n} and {self.batch_size}")
        model = load(self.model, device=self.device)
        for s in steps:
            model.tau(s, self.spacing)
        if self.out is not None:
            new_folder(self.out)
        x, labels = self._images(model)
        rows = []
        with progress(len(steps) * len(methods), "rows") as bar:
            for s in steps:
                for method in methods:
                    rows.append(self._row(model, x, labels, s, method))
                    bar(len(rows))
        print(f"{len(x)} images of {self.data}, {self.model}, spacing {self.spacing}, {model.runs_in(self.precision)}")
        print(table(COLUMNS, [row.cells() for row in rows]))
        if self.out is not None:
            save_csv(self.out / "reconstruct.csv", COLUMNS, [row.numbers() for row in rows])
            plot(self.out / "reconstruct.png", rows)
            print(f"{self.out / 'reconstruct.csv'}, {self.out / 'reconstruct.png'}")

    def _images(self, model: Model) -> tuple[torch.Tensor, list[int] | None]:
        data = open_images(self.data, size=model.shape[1:], channels=model.shape[0])
        n = min(self.n, len(data))
        x = from_uint8(data.pixels[:n]).to(model.device)
        if self.label != "data":
            return x, labels_of(model, self.label, n)
        if data.labels is None:
            raise Refused(f"--label data: {self.data} has no labels")
        return x, labels_of(model, ",".join(map(str, data.labels[:n].tolist())), n)

    def _row(self, model: Model, x: torch.Tensor, labels: list[int] | None, steps: int, method: Any) -> Row:
        parts = []
        for i in range(0, len(x), self.batch_size):
            part = slice(i, i + self.batch_size)
            images = x[part].double() if self.precision == "fp64" else x[part]
            label = None if labels is None else labels[part]
            parts.append(
                model.encode(
                    images, steps=steps, spacing=self.spacing, method=method, label=label, precision=self.precision
                )
            )
        return row_of(Latents.join(parts), steps)


def row_of(latents: Latents, steps: int) -> Row:
    """What the certificate says, as a row of the table."""
    found = latents.certificate
    mse = 10 ** (-found.psnr / 10)  # on [0, 1] the peak is 1, and PSNR does not depend on the scale
    mean = float(mse.mean())
    return Row(
        steps, latents.recipe.method, mean, float(-10 * torch.log10(mse.mean())), float(found.psnr.min()),
        1 - len(latents.unsolved) / len(latents), float(found.nfe.double().mean()) + steps, law(latents.x_T),
    )  # fmt: skip


def plot(path: Path, rows: Sequence[Row]) -> None:
    """MSE against steps, a line a method."""
    title = "Reconstruction after encoding and decoding in S steps"
    with plot_against_steps(path, [row.steps for row in rows], "MSE per dimension, [0, 1] scale", title) as axes:
        for method in dict.fromkeys(row.method for row in rows):
            mine = [row for row in rows if row.method == method]
            axes.plot([r.steps for r in mine], [max(r.mse, FLOOR) for r in mine], marker="o", label=method)
