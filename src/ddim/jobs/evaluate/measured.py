"""Measured sets of images, kept on disk: made batch by batch, each once, going on where a crash left off."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddim.files import digest, read_tensors, write_tensors
from ddim.pixels import Pixels

KEPT = 256  # images of each set kept as pixels: the first ones make its grid
EVERY = 60.0  # seconds between two savings of an unfinished set
SHARE = 0.05  # of the time, at most, goes into saving


@dataclass(frozen=True, eq=False)
class Made:
    """A measured set of images: features (n, D), logits (n, K) or None, the first images, what they cost."""

    features: Tensor
    logits: Tensor | None
    pixels: Pixels
    seconds_per_image: float = 0.0
    nfe: float = 0.0
    times: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.features)


def joined(parts: Sequence[Made]) -> Made:
    """One set of several, in their order."""
    n = sum(map(len, parts))
    logits = [p.logits for p in parts if p.logits is not None]
    return Made(
        torch.cat([p.features for p in parts]), torch.cat(logits) if logits else None,
        np.concatenate([p.pixels for p in parts])[:KEPT], sum(p.seconds_per_image * len(p) for p in parts) / n,
        parts[-1].nfe, parts[-1].times,
    )  # fmt: skip


def collected(
    folder: Path, key: Mapping[str, Any], n: int, batch_size: int, batch: Callable[[slice], Made]
) -> Iterator[int | Made]:
    """Make n images batch by batch, or read them back: yields how many are done, and at last the whole set.

    Args:
        folder: where sets lie, each in one file under a hash of its key.
        key: everything that decides the set, as JSON.
        batch: places in 0..n-1 -> those images, measured.
    """
    path = folder / f"{digest(key)}.safetensors"
    if path.exists():
        yield _read(path)
        return
    half = path.with_suffix(".part")
    parts = [_read(half)] if half.exists() else []
    saved, cost = time.monotonic(), 0.0
    for i in range(sum(map(len, parts)), n, batch_size):
        parts.append(batch(slice(i, min(i + batch_size, n))))
        if time.monotonic() - saved > max(EVERY, cost / SHARE):
            began = time.monotonic()
            parts = [joined(parts)]
            _write(half, parts[0], key)
            saved = time.monotonic()
            cost = saved - began
        yield sum(map(len, parts))
    whole = joined(parts)
    _write(path, whole, key)
    half.unlink(missing_ok=True)
    yield whole


def _write(path: Path, made: Made, key: Mapping[str, Any]) -> None:
    """One file, whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"features": made.features, "pixels": torch.from_numpy(np.ascontiguousarray(made.pixels))}
    if made.logits is not None:
        tensors["logits"] = made.logits
    about = {"seconds_per_image": made.seconds_per_image, "nfe": made.nfe, "times": list(made.times)}
    write_tensors(path, tensors, {"about": json.dumps(about), "key": json.dumps(dict(key))})


def _read(path: Path) -> Made:
    tensors, words = read_tensors(path)
    about = json.loads(words["about"])
    return Made(
        tensors["features"], tensors.get("logits"), tensors["pixels"].numpy(), about["seconds_per_image"],
        about["nfe"], tuple(about["times"]),
    )  # fmt: skip
