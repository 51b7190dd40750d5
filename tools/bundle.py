"""Put a finished run, a student's too, into the package: its weights as fp16, with where they came from.

.venv/bin/python tools/bundle.py RUN mnist
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch

from ddim.checkpoints import load_folder, save_checkpoint

BUNDLED = Path(__file__).parent.parent / "src" / "ddim" / "bundled"


def main(run: str, name: str) -> None:
    found = load_folder(Path(run))
    out = BUNDLED / name
    shutil.rmtree(out, ignore_errors=True)
    # no clip: the paper's DDIM clips nothing, and what is not clipped can be inverted
    save_checkpoint(out, replace(found, clips=False), dtype=torch.float16)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
