"""`ddim ema`: after training, a model whose averaged weights look back as long as one likes, or as measures best."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import ddim
from ddim.cli import costs, options, pictures, steered, typed
from ddim.cli.averaged import OWN, table, words
from ddim.files import free_folder
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.checkpoints import Checkpoint
    from ddim.jobs import Averages, Cell, Measured
    from ddim.metrics import Extractor
    from ddim.model import Labels


@options.command
class Command(
    options.OnDevice, options.Quick, options.Batched, options.Clipped, steered.Steered, options.Walked, options.Seeded,
    options.Out, pictures.Compared,
):  # fmt: skip
    """Rebuild the averaged weights of a training run with another length, from the snapshots it kept in RUN/averages.

    The length is the spread of the average over the run's steps as a share of them: 0.1 looks back about a tenth. Of
    several lengths the one is written whose images are nearest to those of --data; what is measured is kept in
    RUN/averages, so that an interrupted command goes on, and more lengths cost only themselves. All options but
    --length, --out and --at are of that comparison.
    """

    trained: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run folder of `ddim train`."""
    length: str
    """The length of the average, or several to choose from, as "0.05,0.1,0.15"."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="MODEL")] = None
    """The model folder to write, new or empty. Default: RUN/ema-LENGTH."""
    at: int | None = None
    """Average up to the snapshot of this step. Default: the last one."""
    data: str = ""
    """Real images to choose the length by: a folder, a .parquet file, a hub id."""
    n: Annotated[int | None, options.COUNT] = None
    """Images of each length, of seeds SEED..SEED+COUNT-1. Default: 5000, or a smaller --held-out's, or half of DATA."""

    def run(self) -> None:
        self.refuse_no_batch()
        lengths = list(dict.fromkeys(float(f"{value:g}") for value in typed.reals(self.length, "--length")))
        if not lengths:
            raise Refused('--length takes a number like 0.1, or several like "0.05,0.1,0.15"')
        if len(lengths) > 1 and not self.data:
            raise Refused("several lengths are chosen from by real images: give `data`, or one `length`")
        for place in {self._place(length) for length in lengths}:
            free_folder(place)
        kept = ddim.jobs.Averages.of(self.trained, self.at)
        kept.refuse_beyond(lengths)
        made = dict(zip(lengths, kept.rebuilt(lengths), strict=True))
        best, told = (lengths[0], {}) if not self.data else self._chosen(made, kept)
        checkpoint = ddim.jobs.with_provenance(made[best], told)
        print(f"{ddim.Model(checkpoint).save(self._place(best))}: average of length {best:g} at step {kept.step}, "
              f"from {len(kept.files)} snapshots")  # fmt: skip

    def _place(self, length: float) -> Path:
        return self.out or self.trained / f"ema-{length:g}"

    def _chosen(self, made: dict[float, Checkpoint], kept: Averages) -> tuple[float, dict[str, Any]]:
        """The length of the least distance, and what is kept of how it was found."""
        own = ddim.load(self.trained, device=self.device)
        models = {f"{length:g}": ddim.Model(c).to(self.device) for length, c in made.items()} | {OWN: own}
        look = self.look(own.picture_shape[0], own.device)
        measured = self._measured(models, look, kept)
        name = ddim.metrics.distance_name(look.name)
        rows = dict(zip(models, measured.rows, strict=True))
        print(table(name, rows, measured.floor), "", sep="\n")
        best = min(made, key=lambda length: rows[f"{length:g}"].distance)
        print(words(name, rows, f"{best:g}"))
        distances = {key: row.distance for key, row in rows.items()}
        told = {"distance": name, "n": measured.floor.n, "steps": self.usual, "seed": self.seed, "data": self.data}
        return best, {"chosen": told | {"distances": distances}}

    def _measured(self, models: dict[str, ddim.Model], look: Extractor, kept: Averages) -> Measured:
        model = models[OWN]
        held = None if self.held_out is None else self.images(model, self.held_out)
        real = self.images(model)
        n = ddim.jobs.n_allowed(real, held) if self.n is None else self.n
        data, seeds = ddim.jobs.RealSets.of(real, held, n, self.reference), self.from_seed(n, least=10)
        label: Labels = "cycle" if model.num_classes else None
        samplers: dict[Cell, ddim.Sampler] = {}
        for key, one in models.items():
            cell = ddim.jobs.Candidate("ddim", 0.0, self.usual, self.spacing, key)
            samplers[cell] = one.sampler(
                label=label, guidance=self.guidance, clip=self.clip, precision=self.precision, **self.steering,
                **cell.how(),
            )  # fmt: skip
        place = kept.run / ddim.jobs.AVERAGES / "cells"
        whole, left = ddim.jobs.calls_left(samplers, seeds, look, place)
        print(f"{n} images each; real ones: {len(data.reference)} as the reference, {n} for the noise floor; "
              f"features: {look.name}\n{costs.of_rows(len(models), whole, left)}")  # fmt: skip
        with costs.progress(left, self.batch_size * self.usual) as bar:
            return ddim.jobs.measure_cells(
                samplers, seeds, data, look, folder=place, num_classes=ddim.jobs.classes_known(look, model),
                batch_size=self.batch_size, tell=bar,
            )  # fmt: skip
