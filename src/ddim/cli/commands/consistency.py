"""`ddim consistency`: the same latents at different numbers of steps, for DDIM beside DDPM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import ddim
from ddim.cli import options, results, show, steered, typed
from ddim.files import free_folder

if TYPE_CHECKING:
    from ddim.uses import Distance

SHOWN = 8  # latents in the picture
COLUMNS = ("eta", "S", "RMS to long", "same latent / other latent")


@options.command
class Command(
    options.OnDevice, options.Quick, steered.Steered, options.Labelled, options.Spaced, options.ManySteps,
    options.Counted, options.Out, options.OfModel,
):  # fmt: skip
    """The same x_T at different S: a labelled picture, and distances to the long deterministic trajectory.

    With eta = 0 the images share their large features and draw together as S grows; they are not the same bits.
    With eta = 1 (DDPM) they do not. The picture shows the first 8 latents.
    """

    n: Annotated[int, options.COUNT] = 8
    reference: int = 1000
    """Steps of the long trajectory."""
    eta: str = "0,1"
    """Etas to compare."""

    def run(self) -> None:
        out, seeds = free_folder(self.place()), self.counted(least=2)
        etas, steps = typed.reals(self.eta, "--eta"), self.step_list()
        model = self.load()
        taus = [model.tau(s, self.spacing) for s in steps]
        long = self.sampler(model, steps=self.reference, label=self.classes(model, seeds), clip=False)
        rows: list[Distance] = []
        compared = ddim.uses.same_latents(long.bound(seeds), long.start(seeds), taus, long.tau, etas=etas, seeds=seeds)
        with show.progress(len(etas) * len(taus), "rows") as bar:
            for row in compared:
                rows.append(in_units(long, row))
                bar(len(rows))
        results.in_folder(out, lambda place: self._write(place, rows))
        print(show.table(COLUMNS, [cells(row) for row in rows]))
        print(
            f"{self.n} latents, long trajectory {self.reference} steps, in {long.recipe['precision']}; "
            f"pictures and table in {out}"
        )

    def _write(self, out: Path, rows: Sequence[Distance]) -> None:
        shown = min(self.n, SHOWN)
        pictures = [rows[0].long[:shown], *(r.images[:shown] for r in rows)]
        words = [f"S = {self.reference}", *(f"eta {r.eta:g}, S = {r.steps}" for r in rows)]
        seeds = [f"seed {self.seed + i}" for i in range(shown)]
        show.save_sheet(out / "consistency.png", pictures, shown, rows=words, heads=seeds)
        lines = [(r.eta, r.steps, float(r.distance.mean()), r.unrelated) for r in rows]
        show.save_csv(out / "consistency.csv", ("eta", "S", "rms", "unrelated"), lines)
        plot(out / "distance.png", rows)


def in_units(sampler: ddim.Sampler, row: Distance) -> Distance:
    """The row with images in [-1, 1], and their distances so."""
    space = sampler.space
    return row._replace(
        images=space.decode(row.images), long=space.decode(row.long), distance=row.distance * space.unit,
        unrelated=row.unrelated * space.unit,
    )  # fmt: skip


def cells(row: Distance) -> list[str]:
    """As the table shows it."""
    mean = float(row.distance.mean())
    return [f"{row.eta:g}", str(row.steps), f"{mean:.4f}", f"{mean / row.unrelated:.3f}" if row.unrelated else ""]


def plot(path: Path, rows: Sequence[Distance]) -> None:
    """Distance to the long trajectory against S, a line an eta."""
    ylabel = "RMS difference to the long trajectory"
    with show.plot_against_steps(path, [row.steps for row in rows], ylabel) as axes:
        for eta in dict.fromkeys(row.eta for row in rows):
            mine = [row for row in rows if row.eta == eta]
            y = [float(r.distance.mean()) for r in mine]
            axes.plot([r.steps for r in mine], y, marker="o", label=f"eta = {eta:g}")
        axes.axhline(rows[0].unrelated, color="grey", linestyle="--", label="images of different latents")
