"""`ddim tune`: the best times for this checkpoint, solver and number of steps, kept beside the weights."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from ddim import __version__
from ddim.checkpoints import save_tuned
from ddim.cli.show import table
from ddim.data import open_images
from ddim.denoise import Denoiser
from ddim.jobs import Tuned, tune
from ddim.model import Model, load
from ddim.process import generator
from ddim.refused import Refused
from ddim.solve import solver_named
from ddim.uses import closed_form, spectrum

SPECTRUM_IMAGES = 5000


@dataclass(frozen=True)
class Command:
    """Search the times to visit under a budget of calls. `--spacing tuned` then uses them everywhere."""

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    data: tyro.conf.Positional[str]
    """Real images, for the closed-form rival: a folder, a .parquet file, a hub id."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="TAU.JSON")] = None
    """Also write the times and the whole comparison to this new file."""
    steps: str = "10"
    """Numbers of steps, each tuned by itself, e.g. 5,10,20."""
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
    batch_size: int = 64
    """Images a network call."""
    guidance: float = 1.0
    """Weight of classifier-free guidance, as it will be used."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    """Number format of the network."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""
    save: bool = True
    """Save beside the weights, in the model folder's tuned.json."""

    def run(self) -> None:
        if self.out is not None and self.out.exists():
            raise Refused(f"{self.out} exists; choose a new file for --out")
        if min(self.latents, self.long, self.candidates, self.batch_size) < 1 or self.trials < 0:
            raise Refused("--latents, --long, --candidates and --batch-size must be at least 1, --trials 0")
        words = [w.strip() for w in self.steps.split(",") if w.strip()]
        if not words or not all(w.isdecimal() and int(w) >= 1 for w in words):
            raise Refused(f'--steps takes whole numbers like "10,20", got {self.steps!r}')
        model = load(self.model, device=self.device)
        folder = model.checkpoint.folder
        if self.save and folder is None:
            raise Refused(f"{self.model} is no model folder to save in: give --no-save and --out, or ddim import it")
        if self.save and not os.access(str(folder), os.W_OK):
            raise Refused(f"{folder} cannot be written to: give --no-save and --out, or copy the model")
        if not self.save and self.out is None:
            raise Refused("--no-save leaves the times nowhere: give --out TAU.JSON")
        results = {int(w): self._one(model, int(w)) for w in words}
        if self.out is not None:
            self._write(model, results)
        if self.save and folder is not None:
            for result in results.values():
                path = save_tuned(folder, self.solver, result.chosen.tau, model.checkpoint.identity)
            print(f"saved in {path}: use --spacing tuned --solver {self.solver}")

    def _one(self, model: Model, steps: int) -> Tuned:
        c, h, w = model.shape
        images = open_images(self.data, size=(h, w), channels=c)
        index = np.sort(generator(0, "spectrum").permutation(len(images))[:SPECTRUM_IMAGES])
        rival = closed_form(model.schedule, spectrum(images.pixels[index]) / model.space.unit**2, steps)
        K = model.num_classes

        def denoiser(seeds: list[int]) -> Denoiser:
            label = model.labels([s % K for s in seeds], len(seeds)) if K else None
            return model.denoiser(label=label, guidance=self.guidance, precision=self.precision)

        job = tune(
            denoiser, model.shape, solver_named(self.solver), steps, others={"closed form": rival},
            latents=self.latents, long=self.long, candidates=self.candidates, trials=self.trials,
            batch_size=self.batch_size, device=model.device,
        )  # fmt: skip
        for news in job:
            if isinstance(news, Tuned):
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
        rows = [
            [r.name, f"{r.seen:.4f}", f"{r.unseen:.4f}", " ".join(map(str, r.tau))]
            for r in sorted(result.rivals, key=lambda r: r.unseen)
        ]
        print(table(["times", "searched on", "unseen", "tau"], rows))
        print(f"chosen: {result.chosen.name}\n")

    def _write(self, model: Model, results: dict[int, Tuned]) -> None:
        document = {
            "model": self.model, "weights": model.weights_hash, "solver": self.solver, "latents": self.latents,
            "long": self.long, "candidates": self.candidates, "trials": self.trials, "guidance": self.guidance,
            "precision": model.runs_in(self.precision), "version": __version__,
            "tau": {str(S): list(r.chosen.tau) for S, r in results.items()},
            "rivals": {
                str(S): [{"name": v.name, "seen": v.seen, "unseen": v.unseen, "tau": list(v.tau)} for v in r.rivals]
                for S, r in results.items()
            },
        }  # fmt: skip
        assert self.out is not None
        self.out.parent.mkdir(parents=True, exist_ok=True)
        partial = self.out.with_name(f".{self.out.name}.part")
        partial.write_text(json.dumps(document, indent=1))
        partial.replace(self.out)
        print(self.out)
