"""`ddim info`: what a model is, how it was read, what was assumed; with --check, whether real images agree."""

from __future__ import annotations

from pathlib import Path

import tyro

import ddim
from ddim.cli import options
from ddim.refused import Refused


@options.command
class Command(options.Foreign, options.OfModel):
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
            from ddim.cli.commands.train import Command as Train
            from ddim.cli.resumed import progress

            print(progress(Path(self.model), run, Train) + "\n")
            if not run.steps:
                return  # no checkpoint yet, so no model either
        checkpoint = ddim.load(self.model, family=self.family, config=self.config).checkpoint
        print(described(checkpoint))
        if self.data is not None:
            print("\n" + reported(checked(checkpoint, self.data)))
