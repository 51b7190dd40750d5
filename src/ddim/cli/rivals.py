"""Other models in an evaluation: their rows, and what they must have in common with the report's own model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ddim
from ddim.cli.typed import words
from ddim.jobs import Cell, rivals_of
from ddim.refused import Refused


def samplers_of(
    command: Any, model: ddim.Model, cells: Sequence[Cell]
) -> tuple[dict[Cell, ddim.Sampler], dict[str, str]]:
    """The samplers of every row of the models under --rival, and their weights' hashes by name.

    Raises:
        Refused: one that makes other pictures, or has other classes; two of one name.
    """
    found: dict[Cell, ddim.Sampler] = {}
    hashes: dict[str, str] = {}
    for text in words(command.rival):
        other, name = ddim.load(text, device=command.device), Path(text).name
        if name in hashes:
            raise Refused(f"two rivals are called {name}: rows could not be told apart; rename one of the folders")
        if other.picture_shape != model.picture_shape or other.num_classes != model.num_classes:
            raise Refused(
                f"rival {text} makes {other.picture_shape} of {other.num_classes or 'no'} classes, {command.model} "
                f"{model.picture_shape} of {model.num_classes or 'no'}: they cannot be asked for the same pictures"
            )
        hashes[name] = other.weights_hash
        label: Any = "cycle" if model.num_classes else None
        own = {"clip": command.clip, "precision": command.precision}
        own |= {"guidance": command.guidance} if other.student is None else {}
        for cell in rivals_of(name, other, cells):
            found[cell] = other.sampler(label=label, **own, **cell.how())
    return found, hashes
