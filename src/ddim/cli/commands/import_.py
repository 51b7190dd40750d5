"""`ddim import`: a foreign checkpoint becomes a model folder that ddim and diffusers read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from ddim.checkpoints import open_checkpoint, parsed, read_settings, save_checkpoint
from ddim.cli.commands.info import checked, described, reported
from ddim.refused import Refused


@dataclass(frozen=True)
class Command:
    """Turn a diffusers, ermongroup, OpenAI or lucidrains checkpoint into a model folder."""

    source: tyro.conf.Positional[str]
    """The checkpoint: a file, a diffusers folder, or a hub id."""
    out: tyro.conf.Positional[Path]
    """The model folder to write; it must not exist."""
    family: str = "auto"
    """auto, diffusers, ermongroup, openai or lucidrains."""
    config: Path | None = None
    """The peer's own settings, a YAML or JSON file, where the checkpoint does not hold them."""
    set: tuple[str, ...] = ()
    """Single settings in the peer's names, NAME=VALUE; dots go into sections: diffusion.image_size=64."""
    data: str | None = None
    """Real images like those it was trained on; with them the import checks its reading."""

    def run(self) -> None:
        if self.out.exists():
            raise Refused(f"{self.out} exists; nothing is overwritten, choose a new folder")
        settings = merged(read_settings(self.config), self.set)
        checkpoint = open_checkpoint(self.source, family=self.family, config=settings)
        print(described(checkpoint))
        if self.data is not None:
            report = checked(checkpoint, self.data)
            print("\n" + reported(report))
            for warning in report.warnings:
                print(f"ddim: warning: {warning}", file=sys.stderr)
        save_checkpoint(self.out, checkpoint)
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
        place[last] = parsed(value, f"--set {text}: the value")
    return out
