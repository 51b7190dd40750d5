"""Put a finished run, a student's or an autoencoder's too, into the package: fp16, with where it came from.

.venv/bin/python tools/bundle.py RUN mnist
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ddim.checkpoints import is_autoencoder, load_folder, open_autoencoder, save_autoencoder, save_checkpoint

BUNDLED = Path(__file__).parent.parent / "src" / "ddim" / "bundled"


def without_paths(value: Any) -> Any:
    """The same words, files by their names alone: where they lay on the machine that trained is nobody's business."""
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_paths(inner) for inner in value]
    if not isinstance(value, str):
        return value
    return " ".join(Path(word).name if Path(word).is_absolute() else word for word in value.split(" "))


def main(run: str, name: str) -> None:
    out = BUNDLED / name
    if is_autoencoder(Path(run)):
        made = open_autoencoder(run)
        shutil.rmtree(out, ignore_errors=True)
        facts = without_paths({k: v for k, v in made.facts.items() if k != "sha256"})
        save_autoencoder(out, made, facts, dtype=torch.float16)
    else:
        found = load_folder(Path(run))
        shutil.rmtree(out, ignore_errors=True)
        # no clip: the paper's DDIM clips nothing, and what is not clipped can be inverted
        kept = replace(found, clips=False, meta=without_paths(dict(found.meta)))
        save_checkpoint(out, kept, dtype=torch.float16)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
