"""`ddim tune`: the best times for this checkpoint, solver and number of steps, kept beside the weights."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

import ddim
from ddim.cli import options, pictures, results, show, steered
from ddim.files import VERSION, free_file, write_json
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.data import Images
    from ddim.jobs import Tuned

SPECTRUM_IMAGES = 5000


@options.command
class Command(
    options.OnDevice, options.Quick, options.Batched, steered.Steered, options.ManySteps, options.Out, pictures.OfData,
    options.OfModel,
):  # fmt: skip
    """Search the times to visit under a budget of calls. `--spacing tuned` then uses them everywhere.

    Each number of steps is tuned by itself. The data are for the closed-form rival. Guidance as it will be used.
    """

    out: Annotated[Path | None, tyro.conf.arg(metavar="TAU.JSON")] = None
    """Also write the times and the whole comparison to this new file."""
    steps: str = "10"
    solver: str = "dpm++2m"
    """The solver that will be used; times for one do not fit another."""
    latents: int = 128
    """Latents to search on, and as many others to check on."""
    long: int = 150
    """Steps of the trajectory to come close to."""
    candidates: int = 40
    """Times the dynamic programme may choose from."""
    trials: int = 100
    """Trials of the search that follows it; each costs steps x latents network calls."""
    precision: options.Fast = "fp32"
    save: bool = True
    """Save beside the weights, in the model folder's tuned.json."""

    def run(self) -> None:
        if self.out is not None:
            free_file(self.out)
        if min(self.latents, self.long, self.candidates, self.batch_size) < 1 or self.trials < 0:
            raise Refused("--latents, --long, --candidates and --batch-size must be at least 1, --trials 0")
        steps, model = self.step_list(), self.load()
        self._refuse_unkept(model)
        images = self.images(model)
        found: dict[int, Tuned] = {}
        for S in steps:
            found[S] = self._one(model, images, S)
            if self.save:  # at once: it took long
                path = model.save_tau(found[S].chosen.tau, self.solver)
        if self.out is not None:
            document = self._document(model, found)
            results.in_file(self.out, lambda path: write_json(path, document, new=True))
            print(self.out)
        if self.save:
            print(f"saved in {path}: use --spacing tuned --solver {self.solver}")

    def _refuse_unkept(self, model: ddim.Model) -> None:
        if self.save and model.folder is None:
            raise Refused(f"{self.model} is no model folder to save in: give --no-save and --out, or ddim import it")
        if self.save and not os.access(str(model.folder), os.W_OK):
            raise Refused(f"{model.folder} cannot be written to: give --no-save and --out, or copy the model")
        if not self.save and self.out is None:
            raise Refused("--no-save leaves the times nowhere: give --out TAU.JSON")

    def _one(self, model: ddim.Model, images: Images, steps: int) -> Tuned:
        import numpy as np

        index = np.sort(ddim.process.generator(0, "spectrum").permutation(len(images))[:SPECTRUM_IMAGES])
        power = ddim.uses.spectrum(images.pixels[index]) / model.space.unit**2
        label = "cycle" if model.num_classes else None
        job = ddim.jobs.tune(
            self.sampler(model, label=label, solver=self.solver, steps=steps),
            others={"closed form": ddim.uses.closed_form(model.process, power, steps)},
            latents=self.latents, long=self.long, candidates=self.candidates, trials=self.trials,
            batch_size=self.batch_size,
        )  # fmt: skip
        for news in job:
            if not isinstance(news, str):
                self._tell(news, steps)
                return news
            if sys.stderr.isatty():
                print(f"{steps} steps: {news}", file=sys.stderr)
        raise RuntimeError("the search ended without a result")

    def _tell(self, result: Tuned, steps: int) -> None:
        print(
            f"{steps} steps of {self.solver}: distance to {self.long} steps of dpm++3m from the same latents "
            "(each image's RMS, geometric mean)"
        )
        rivals = sorted(result.rivals, key=lambda r: r.unseen)
        rows = [[r.name, f"{r.seen:.4f}", f"{r.unseen:.4f}", " ".join(f"{t:g}" for t in r.tau)] for r in rivals]
        print(show.table(["times", "searched on", "unseen", "tau"], rows))
        print(f"chosen: {result.chosen.name}\n")

    def _document(self, model: ddim.Model, results: dict[int, Tuned]) -> dict[str, object]:
        return {
            "model": self.model, "weights": model.weights_hash, "solver": self.solver, "latents": self.latents,
            "long": self.long, "candidates": self.candidates, "trials": self.trials, "guidance": self.guidance,
            "guide": self.guide, "interval": self.interval, "version": VERSION,
            "precision": model.runs_in(self.precision),
            "tau": {str(S): list(r.chosen.tau) for S, r in results.items()},
            "rivals": {
                str(S): [{"name": v.name, "seen": v.seen, "unseen": v.unseen, "tau": list(v.tau)} for v in r.rivals]
                for S, r in results.items()
            },
        }  # fmt: skip
