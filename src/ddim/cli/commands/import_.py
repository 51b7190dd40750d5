"""`ddim import`: a foreign checkpoint becomes a model folder that ddim and diffusers read."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import tyro

import ddim
from ddim.cli import options, pictures
from ddim.refused import Refused
from ddim.stored import from_yaml


@options.command
class Command(options.Foreign, pictures.Fitted, pictures.Skipping, options.NewFolder):
    """Turn a diffusers, ermongroup, OpenAI or lucidrains checkpoint into a model folder."""

    source: tyro.conf.Positional[str]
    """The checkpoint: a file, a diffusers folder, or a hub id."""
    set: tuple[str, ...] = ()
    """Single settings in the peer's names, NAME=VALUE; dots go into sections: diffusion.timesteps=1000."""
    data: str | None = None
    """Real images like those it was trained on; with them the import checks its reading."""

    def run(self) -> None:
        self.refuse_existing()
        from ddim.cli.facts import checked, described, reported

        settings = merged(ddim.checkpoints.read_settings(self.config), self.set)
        checkpoint = ddim.checkpoints.open_checkpoint(self.source, family=self.family, config=settings)
        print(described(checkpoint))
        if self.data is not None:
            sizes, shape = Counter[tuple[int, int]](), checkpoint.picture_shape
            how: Any = {"inner": self.inner(shape), "skip": self.skip_unreadable, "seen": sizes}
            report = checked(checkpoint, self.data, self.fit, **how)
            self.tell(shape, sizes)
            print("\n" + reported(report))
            for warning in report.warnings:
                print(f"ddim: warning: {warning}", file=sys.stderr)
        ddim.checkpoints.save_checkpoint(self.out, checkpoint)
        print(f"\nwritten to {self.out}")


def merged(settings: dict[str, Any], assignments: tuple[str, ...]) -> dict[str, Any]:
    """The settings with NAME=VALUE put in; VALUE is read as YAML, so numbers, lists and booleans are what they look.

    Raises:
        Refused: not of the form NAME=VALUE, or a section that is a single value.
    """
    out = dict(settings)
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not all(name.split(".")):
            raise Refused(f"--set takes NAME=VALUE, got {text!r}")
        *sections, last = name.split(".")
        place = out
        for section in sections:
            inner = place.get(section, {})
            if not isinstance(inner, dict):
                raise Refused(f"--set {text}: {section} is not a section")
            place[section] = dict(inner)
            place = place[section]
        place[last] = from_yaml(value, f"--set {text}: the value")
    return out
