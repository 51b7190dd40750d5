"""Whole files of every kind, made once by the commands themselves: cases are copies with something wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from arena import Arena
from PIL import Image
from words import CYCLE, DIGITS, FAST, HALVING, REPORT

from conftest import save_tiny  # of tests/

FOUR = ["--max-steps", "4", "--log-every", "1", "--checkpoint-every", "2"]
SLOW = ("report", "tuned", "onnx")


def templates(arena: Arena, *, few: bool = False) -> Path:
    """A folder with a model, a run, an autoencoder and a run in its latents, a job, latents, a report, an ONNX folder,
    pictures and a table of them.

    `few`: without what takes seconds to make.
    """
    root = arena.root / ("few" if few else "templates")
    root.mkdir()
    save_tiny(root / "model", num_classes=3, labels=["cat", "dog", "owl"], shape=(1, 8, 8))
    pictures(root / "pictures", 30)
    table(root / "table.parquet")
    model, made = str(root / "model"), str(root / "pictures")
    images = [f"{made}/a/0{i}.png" for i in (1, 3, 5)]
    commands: dict[str, list[str]] = {
        "run": ["train", made, *DIGITS, *FOUR, "--batch-size", "4", *FAST, "--out", str(root / "run")],
        "ae": ["train-autoencoder", made, *HALVING, *FOUR, "--out", str(root / "ae")],
        "latent": ["train", made, *DIGITS, *FOUR, "--batch-size", "4", *FAST, "--autoencoder", str(root / "ae"),
                   "--out", str(root / "latent")],
        "job": ["sample", model, *CYCLE, *FAST, "--out", str(root / "job")],
        "latents": ["encode", model, *images, "--steps", "3", *FAST, "--out", str(root / "z.safetensors")],
        "report": ["evaluate", model, made, *REPORT, *FAST, "--out", str(root / "report")],
        "tuned": ["tune", model, made, "--steps", "2", "--latents", "2", "--long", "4", "--candidates", "4",
                  "--trials", "1", *FAST],
        "onnx": ["export", model, str(root / "onnx"), "--to", "onnx"],
    }  # fmt: skip
    for name, argv in commands.items():
        if few and name in SLOW:
            continue
        made_of = arena.run(lambda _, argv=argv: argv, times=10)
        if made_of.code:
            raise RuntimeError(f"no {name}: {made_of.err[-2000:]}")
    return root


def pictures(folder: Path, n: int, size: int = 8) -> None:
    """n grey PNGs in two class folders."""
    for i in range(n):
        place = folder / ("a" if i % 2 else "b")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(i, size)).save(place / f"{i:02d}.png")


def picture(i: int, size: int = 8) -> Any:
    """A grey picture, never the same twice."""
    y, x = np.mgrid[0:size, 0:size]
    return ((x * (20 + i) + y * (7 + 3 * i)) % 256).astype(np.uint8)


def table(path: Path, rows: int = 24, **more: Any) -> None:
    """A Parquet file as `datasets` writes it."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = []
    for i in range(rows):
        data = io.BytesIO()
        Image.fromarray(picture(i)).save(data, format="PNG")
        cells.append({"bytes": data.getvalue(), "path": None})
    pq.write_table(pa.table({"image": cells, "label": [i % 2 for i in range(rows)], **more}), path)
