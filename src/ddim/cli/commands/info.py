"""`ddim info`: what a model is, how it was read, what was assumed; with --check, whether real images agree."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import tyro

import ddim
from ddim.cli import options, pictures
from ddim.refused import Refused


@options.command
class Command(options.Foreign, pictures.Fitted, pictures.Skipping, options.OfModel):
    """Show what a model is, how it was read and what was assumed; check it against real images."""

    model: tyro.conf.Positional[str] = options.DEFAULT
    check: bool = False
    """Denoise a few real images under every reading of the file and say which fits."""
    data: str | None = None
    """For --check: images like those it was trained on: a folder, a .parquet file, a hub id, "digits"."""

    def run(self) -> None:
        if self.check != (self.data is not None):
            raise Refused("--check needs --data DATA, and --data is for --check")
        from ddim.cli.facts import checked, described, reported

        run = ddim.jobs.standing(Path(self.model))
        if run is not None:
            from ddim.cli.commands import train, train_autoencoder
            from ddim.cli.resumed import name_of, progress

            place = Path(self.model)
            by = train if name_of(place) == "train" else train_autoencoder
            print(progress(place, run, by.Command) + "\n")
            if not run.steps:
                return  # no checkpoint yet, so no model either
        if ddim.model.holds_autoencoder(self.model):
            from ddim.cli.encoding import described_autoencoder

            if self.data is not None:
                raise Refused(f"{self.model} is an autoencoder: --check is of a model's denoising")
            print(described_autoencoder(ddim.model.load_autoencoder(self.model), self.model))
            return
        model = ddim.load(self.model, family=self.family, config=self.config)
        print(described(model.checkpoint))
        if self.data is not None:
            sizes = Counter[tuple[int, int]]()
            how: Any = {"inner": self.inner(model.picture_shape), "skip": self.skip_unreadable, "seen": sizes}
            print("\n" + reported(checked(model.checkpoint, self.data, self.fit, **how)))
            self.tell(model.picture_shape, sizes)
            self.suggest(model, self.data, sizes)
