"""Put a finished run into the package: averaged weights as fp16, with where they came from.

.venv/bin/python tools/bundle.py RUN mnist
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from ddim.checkpoints import load_folder, save_folder

BUNDLED = Path(__file__).parent.parent / "src" / "ddim" / "bundled"


def main(run: str, name: str) -> None:
    found = load_folder(Path(run))
    out = BUNDLED / name
    shutil.rmtree(out, ignore_errors=True)
    meta = {
        "shape": list(found.shape), "data_range": list(found.data_range), "num_classes": found.num_classes,
        "null_label": found.null_label, "labels": list(found.labels or ()) or None,
        "clips": False,  # the paper's DDIM clips nothing, and what is not clipped can be inverted
        "provenance": found.meta.get("provenance"),
    }  # fmt: skip
    save_folder(out, found.network.unet, found.schedule, prediction=found.prediction, meta=meta, dtype=torch.float16)
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    print(f"{out}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
