"""An autoencoder's own folder, as diffusers' from_pretrained loads it, with ddim.json beside its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ddim.checkpoints.facts import OURS
from ddim.checkpoints.families.diffusers.autoencoder import (
    CONFIG,
    KINDS,
    PLACES,
    read_autoencoder,
    write_autoencoder,
)
from ddim.files import VERSION, read_json, whole_folder, write_json
from ddim.nets import Autoencoder
from ddim.refused import Refused
from ddim.stored import MAPPING, WORD, Rule, checked, is_number, only

RULES: dict[str, Rule] = {
    "sha256": WORD,
    "provenance": MAPPING,
    "measured": (
        "a mapping of finite numbers",
        only(lambda v: isinstance(v, Mapping) and all(map(is_number, v.values()))),
    ),
}


def is_autoencoder(folder: Path) -> bool:
    """Whether an autoencoder alone lies there, no model of a process."""
    file = folder / CONFIG
    return file.is_file() and read_json(file).get("_class_name") in KINDS


def load_autoencoder(path: str | Path) -> Autoencoder:
    """The autoencoder of a folder: its own, or `vae` or `vqvae` of a model's; what ddim.json says is its `facts`.

    Raises:
        Refused: there is none, or it cannot be built, or its weights are damaged.
    """
    folder = Path(path)
    if not is_autoencoder(folder):
        inside = [folder / name for name in PLACES if is_autoencoder(folder / name)]
        if not inside:
            raise Refused(f"{folder} holds no autoencoder: no {CONFIG} of {', '.join(KINDS)}, nor a vae/ with one")
        folder = inside[0]
    told = folder / OURS
    facts = checked(read_json(told), RULES, str(told)) if told.is_file() else {}
    notes: list[str] = []
    made = read_autoencoder(folder, facts.get("sha256"), notes)
    made.facts, made.notes = facts, tuple(notes)
    return made


def save_autoencoder(
    path: str | Path, made: Autoencoder, facts: Mapping[str, Any] | None = None, *, dtype: torch.dtype | None = None,
    new: bool = False,
) -> None:  # fmt: skip
    """Write it as a folder of its own, whole at every moment.

    Args:
        facts: what ddim.json says beside the hash of the weights: what JSON can hold.
        dtype: of the stored weights; theirs by default. new: see `whole_folder`.

    Raises:
        Refused: path is a file, or, where it must be new, holds something; facts are no JSON.
    """
    with whole_folder(path, last=(OURS, CONFIG), new=new) as folder:
        digest = write_autoencoder(folder, made, dtype)
        write_json(folder / OURS, {"ddim_version": VERSION, "sha256": digest} | dict(facts or {}))
