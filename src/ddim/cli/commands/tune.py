"""`ddim tune`: the best times for this checkpoint, solver and number of steps, or guidance, or the hand-over to it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

import ddim
from ddim.cli import clustered, judged, options, pictures, steered, timed
from ddim.files import free_file
from ddim.refused import Refused


@options.command
class Command(
    options.OnDevice, options.Quick, options.Batched, options.Spaced, steered.Steered, steered.HandedOver,
    options.ManySteps, options.Out, pictures.Compared, clustered.OnCluster, options.OfModel,
):  # fmt: skip
    """Search the times to visit under a budget of calls. `--spacing tuned` then uses them everywhere.

    With `--guidance` alone: search the weight of guidance (by --guide, or by the open label) and its interval together.
    With `--early SMALL` and no --at: the hand-over. Both are judged by the images they make beside DATA, on the same
    seeds, and checked on others; what is measured is kept in --out, so that the same command goes on. Times are judged
    by the network's own error, and the data are for the closed-form rival. Each number of steps is tuned by itself.
    """

    BARE: ClassVar = {"--guidance": judged.AUTO}
    out: Annotated[Path | None, tyro.conf.arg(metavar="TAU.JSON|DIR")] = None
    """Also write the whole comparison: to this new file, or, where images are judged, to this folder."""
    guidance: float | Literal["auto", "tuned"] = 1.0  # type: ignore[assignment]  # a word more than elsewhere
    """Weight of guidance, as it will be used; "auto", or the flag alone: find it, with its interval."""
    steps: str = "10"
    solver: str = "dpm++2m"
    """The solver that will be used; what is tuned for one does not fit another."""
    n: Annotated[int | None, options.COUNT] = None
    """Images of each candidate, where images are judged; default as in ddim evaluate."""
    latents: int = 128
    """Latents to search times on, and as many others to check on."""
    long: int = 150
    """Steps of the trajectory to come close to."""
    candidates: int = 40
    """Times the dynamic programme may choose from."""
    trials: int = 100
    """Trials of the search that follows it, each of steps x latents network calls; or the most that follow the coarse
    table of guidance."""
    precision: options.Fast = "fp32"
    save: bool = True
    """Save beside the weights, in the model folder's tuned.json."""

    def run(self) -> None:
        by_images = self._by_images()
        if self.out is not None:
            if not by_images and timed.made_by_others(self, self.step_list()):
                return
            ddim.jobs.refuse_no_report(self.out) if by_images else free_file(self.out)
        if min(self.latents, self.long, self.candidates, self.batch_size) < 1 or self.trials < 0:
            raise Refused("--latents, --long, --candidates and --batch-size must be at least 1, --trials 0")
        steps, model = self.step_list(), self.load()
        self._refuse_unkept(model)
        (judged.search if by_images else timed.search)(self, model, steps)

    def _by_images(self) -> bool:
        """Whether guidance or the hand-over is searched; times are, where neither is."""
        open_end = self.early is not None and self.at is None
        if self.guidance == judged.AUTO and open_end:
            raise Refused("one search at a time: give --guidance a number, or say where --early hands over, --at")
        if self.guidance == judged.AUTO and self.interval is not None:
            raise Refused("--guidance auto finds the interval too: give it without --interval")
        if self.guidance != judged.AUTO and not open_end and self.spacing != "auto":
            raise Refused("the times are what is searched: give no --spacing, or --guidance auto or --early to search")
        return self.guidance == judged.AUTO or open_end

    def _refuse_unkept(self, model: ddim.Model) -> None:
        if self.save and model.folder is None:
            raise Refused(f"{self.model} is no model folder to save in: give --no-save and --out, or ddim import it")
        if self.save and not os.access(str(model.folder), os.W_OK):
            raise Refused(f"{model.folder} cannot be written to: give --no-save and --out, or copy the model")
        if not self.save and self.out is None:
            raise Refused("--no-save leaves what is found nowhere: give --out")
