"""`ddim consistency`: the same latents at different numbers of steps, for DDIM beside DDPM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from ddim.cli.latent_common import enlargement, labels_of, numbers, plot_against_steps, save_csv
from ddim.cli.show import new_folder, progress, table
from ddim.model import Model, load
from ddim.pixels import grid, save_png, to_uint8
from ddim.process import noise
from ddim.refused import Refused
from ddim.uses import Distance, same_latents

COLUMNS = ("eta", "S", "RMS to long", "same latent / other latent")


@dataclass(frozen=True)
class Command:
    """The same x_T at different S: a labelled picture, and distances to the long deterministic trajectory.

    With eta = 0 the images share their large features and draw together as S grows; they are not the same bits.
    With eta = 1 (DDPM) they do not.
    """

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where consistency.png, distance.png and consistency.csv go: a new or empty folder."""
    n: int = 8
    """How many latents: seeds SEED..SEED+N-1; the picture shows the first 8."""
    seed: int = 0
    """The first seed."""
    steps: str = "5,10,20,50,100"
    """Numbers of steps."""
    reference: int = 1000
    """Steps of the long trajectory."""
    eta: str = "0,1"
    """Etas to compare."""
    spacing: str = "uniform"
    """Which steps; see `ddim sample --help`."""
    label: str | None = None
    """For class-conditional models: a class, or one an image."""
    guidance: float = 1.0
    """Weight of classifier-free guidance."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""

    def run(self) -> None:
        if self.out is None:
            raise Refused("say where the pictures go: --out DIR")
        if self.n < 2 or self.seed < 0:
            raise Refused(f"--n must be at least 2 and --seed at least 0, got {self.n} and {self.seed}")
        try:
            etas = [float(word) for word in self.eta.split(",")]
        except ValueError:
            raise Refused(f'--eta is written like "0,0.5,1", got {self.eta!r}') from None
        if not numbers(self.steps, "--steps"):
            raise Refused(f'--steps is written like "10,20,50", got {self.steps!r}')
        model = load(self.model, device=self.device)
        taus = [model.tau(s, self.spacing) for s in numbers(self.steps, "--steps")]
        labels = model.labels(labels_of(model, self.label, self.n), self.n)
        out, seeds = new_folder(self.out), list(range(self.seed, self.seed + self.n))
        denoise = model.denoiser(label=labels, guidance=self.guidance, clip=False)
        x_T = noise(seeds, model.shape, device=model.device)
        rows: list[Distance] = []
        long = model.tau(self.reference, self.spacing)
        with progress(len(etas) * len(taus), "rows") as bar:
            for row in same_latents(denoise, x_T, taus, long, etas=etas, seeds=seeds):
                rows.append(in_units(model, row))
                bar(len(rows))
        self._write(out, rows, enlargement(model))
        print(table(COLUMNS, [cells(row) for row in rows]))
        print(f"{self.n} latents, long trajectory {self.reference} steps; pictures and table in {out}")

    def _write(self, out: Path, rows: Sequence[Distance], scale: int) -> None:
        shown = min(self.n, 8)
        pictures = to_uint8(torch.cat([rows[0].long[:shown], *(r.images[:shown] for r in rows)]))
        words = [f"S = {self.reference}", *(f"eta {r.eta:g}, S = {r.steps}" for r in rows)]
        seeds = [f"seed {self.seed + i}" for i in range(shown)]
        save_png(out / "consistency.png", grid(pictures, shown, row_labels=words, column_labels=seeds, scale=scale))
        save_csv(out / "consistency.csv", ("eta", "S", "rms", "unrelated"),
                 [(r.eta, r.steps, float(r.distance.mean()), r.unrelated) for r in rows])  # fmt: skip
        plot(out / "distance.png", rows)


def in_units(model: Model, row: Distance) -> Distance:
    """The row with images in [-1, 1], and their distances so."""
    space = model.space
    return row._replace(
        images=space.decode(row.images), long=space.decode(row.long), distance=row.distance * space.unit,
        unrelated=row.unrelated * space.unit,
    )  # fmt: skip


def cells(row: Distance) -> list[str]:
    mean = float(row.distance.mean())
    return [f"{row.eta:g}", str(row.steps), f"{mean:.4f}", f"{mean / row.unrelated:.3f}" if row.unrelated else ""]


def plot(path: Path, rows: Sequence[Distance]) -> None:
    """Distance to the long trajectory against S, a line an eta."""
    ylabel = "RMS difference to the long trajectory"
    with plot_against_steps(path, [row.steps for row in rows], ylabel) as axes:
        for eta in dict.fromkeys(row.eta for row in rows):
            mine = [row for row in rows if row.eta == eta]
            y = [float(r.distance.mean()) for r in mine]
            axes.plot([r.steps for r in mine], y, marker="o", label=f"eta = {eta:g}")
        axes.axhline(rows[0].unrelated, color="grey", linestyle="--", label="images of different latents")
