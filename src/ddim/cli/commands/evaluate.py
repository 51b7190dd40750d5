"""`ddim evaluate`: quality against steps, eta, solver and spacing, with the protocol in every number."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import ddim
from ddim.cli import clustered, costs, options, pictures, show, steered, typed
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.jobs import Cell


@options.command
class Command(
    options.OnDevice, options.Quick, options.Batched, options.Clipped, steered.Steered, steered.HandedOver,
    options.ManySteps, options.Seeded, options.Out, pictures.Compared, clustered.OnCluster, options.OfModel,
):  # fmt: skip
    """How many steps does this model need? A table and one page; interrupted, the same command goes on.

    Class-conditional models are asked for class (seed modulo number of classes). COUNT images of each row are measured,
    and COUNT real ones for the noise floor. What it will cost is told first.
    """

    out: Annotated[Path | None, tyro.conf.arg(metavar="REPORT")] = None
    """Folder for the report; finished cells in it are used again."""
    eta: str = "0,0.5,1"
    """Etas of the ddim solver; 1 is DDPM."""
    solver: str = "ddim"
    """Solvers, e.g. ddim,heun,ab2,dpm++2m,unipc."""
    spacing: str = "auto"
    """Which times, e.g. uniform,trailing,tuned; auto is edm on the process of that name, else uniform."""
    also: str = ""
    """More rows, as SOLVER:ETA:STEPS:SPACING, e.g. "ddim:1:1000:uniform,ddim:hat:1000:uniform".
    Eta hat is sigma-hat, learned the predicted variance."""
    sigma_hat: bool = True
    """Add the rows of DDPM's larger noise to solver ddim."""
    sigma_learned: bool = False
    """Add the rows of the variance that the network predicts."""
    rival: str = ""
    """More models in the same report, by comma: a student takes its own steps, any other model every row."""
    n: Annotated[int | None, options.COUNT] = None
    """Images of each row, of seeds SEED..SEED+COUNT-1. Default: 5000, or a smaller --held-out's, or half of DATA."""

    def run(self) -> None:
        out = self.place("REPORT")
        self.refuse_no_batch()
        self.from_seed(10 if self.n is None else self.n, least=10)
        ddim.jobs.refuse_no_report(out)
        self._cells()  # words that mean nothing are refused before a model is loaded
        share, model = ddim.jobs.share_of(os.environ), self.load()
        cells = self._cells(ddim.process.usual_spacing(model.process))
        label = "cycle" if model.num_classes else None  # what cannot work is refused before anything is made
        samplers = {cell: self.sampler(model, label=label, **cell.how()) for cell in cells}
        hashes, look = self._rivals(model, samplers), self.look(model.picture_shape[0], model.device)
        held = None if self.held_out is None else self.images(model, self.held_out)
        own, over = self.images(model), self.over(share, model)
        n = ddim.jobs.n_allowed(own, held) if self.n is None else self.n
        data, seeds = ddim.jobs.RealSets.of(own, held, n, self.reference), self.from_seed(n, least=10)
        hold, crew = ddim.jobs.take_up(out, share)
        whole, left = ddim.jobs.calls_left(samplers, seeds, look, out / "cells")
        if share.rank == 0:
            print(f"{n} images a row; real ones: {len(data.reference)} as the reference, {n} for the noise floor; "
                  f"features: {look.name}\n{costs.of_rows(len(samplers), whole, left)}")  # fmt: skip
        with costs.progress(left // share.world, self.batch_size * min(s.calls for s in samplers.values())) as bar:
            found = ddim.jobs.share_cells(
                samplers, seeds, data, look, num_classes=ddim.jobs.classes_known(look, model),
                batch_size=self.batch_size, folder=out / "cells", tell=bar, share=share, crew=crew, over=over,
            )  # fmt: skip
        if found is None:
            show.unfinished(share, crew, out)
            return
        name = ddim.metrics.distance_name(look.name)
        stamp: dict[str, Any] = {
            "model": self.model, "weights sha256": model.weights_hash, "distance": name, "n": n, "rivals": hashes,
            "seeds": f"{seeds[0]}-{seeds[-1]}", **data.stamp(self.data, self.held_out or self.data),
            **ddim.jobs.stamp_of_run(model, samplers, look, self.batch_size),
        }  # fmt: skip
        words = ddim.jobs.answer(found.rows, name, found.floor)
        page = ddim.jobs.write_report(out, found.rows, found.floor, found.made, stamp, words)
        lines = [ddim.jobs.table_cells(r) for r in [*found.rows, found.floor]]
        print(show.table(ddim.jobs.heads(name), lines), "", *words, f"report: {page}", sep="\n")
        if hold is not None:
            hold.release()

    def _rivals(self, model: ddim.Model, samplers: dict[Cell, ddim.Sampler]) -> dict[str, str]:
        """Their rows, added; and their weights' hashes by name."""
        from ddim.cli import rivals

        others, hashes = rivals.samplers_of(self, model, list(samplers))
        samplers |= others
        return hashes

    def _cells(self, usual: str = "auto") -> list[Cell]:
        etas, cells = typed.reals(self.eta, "--eta"), []
        if self.steps:
            solvers, spacings = typed.words(self.solver), typed.words(self.spacing.replace("auto", usual))
            cells = ddim.jobs.table_of(self.step_list(), etas, solvers, spacings, sigma_hat=self.sigma_hat,
                                       sigma_learned=self.sigma_learned)  # fmt: skip
        cells += [ddim.jobs.cell_named(text) for text in typed.words(self.also)]
        if not cells:
            raise Refused("no rows: give --steps or --also")
        return list(dict.fromkeys(cells))
