"""Put a finished run, a student's or an autoencoder's too, into the package: fp16, with where it came from.

.venv/bin/python tools/bundle.py RUN mnist
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ddim.checkpoints import is_autoencoder, load_folder, open_autoencoder, save_autoencoder, save_checkpoint

BUNDLED = Path(__file__).parent.parent / "src" / "ddim" / "bundled"


def main(run: str, name: str) -> None:
    out = BUNDLED / name
    shutil.rmtree(out, ignore_errors=True)
    if is_autoencoder(Path(run)):
        made = open_autoencoder(run)
        facts = {k: v for k, v in made.facts.items() if k != "sha256"}
        save_autoencoder(out, made, facts, dtype=torch.float16)
    else:
        # no clip: the paper's DDIM clips nothing, and what is not clipped can be inverted
        save_checkpoint(out, replace(load_folder(Path(run)), clips=False), dtype=torch.float16)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
