"""A teacher's own pictures as data, where there is none: made once from stated seeds, and cached."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ddim.data import Images, cache_root, images_of
from ddim.files import alone, digest, sweep, whole_file, whole_folder, write_text
from ddim.jobs.distil.start import fewer
from ddim.model import Model, Sampler
from ddim.pixels import to_uint8

PART, STEPS = 128, 20


def own_images(
    teacher: Model, n: int, *, guidance: float = 1.0, batch_size: int = 64, cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Images:  # fmt: skip
    """n pictures by the teacher, seeds 0 to n - 1, class seed modulo the number of classes, 20 steps of dpm++2m.

    They lie in the cache under a hash of the recipe that made them, part by part, so that what was interrupted goes on.

    Args:
        cache: where; default that of data sets.
        progress: called with (done, n).
    """
    taught = teacher.checkpoint.student is not None
    sampler = teacher.sampler(
        steps=None if taught else fewer(teacher, STEPS), solver="ddim" if taught else "dpm++2m",
        label="cycle" if teacher.num_classes else None, guidance=guidance, precision="auto",
    )  # fmt: skip
    folder = (cache or cache_root()) / f"made-{digest([dict(sampler.recipe), n])}"
    if not (folder / "report.json").exists():
        place = folder.with_name(folder.name + "-parts")
        place.mkdir(parents=True, exist_ok=True)
        with alone(place):  # of two commands, or of torchrun's processes, the second finds them made
            if not (folder / "report.json").exists():
                _make(folder, place, sampler, n, batch_size, progress)
    pixels = np.load(folder / "pixels.npy")
    label = torch.tensor([s % teacher.num_classes for s in range(n)]) if teacher.num_classes else None
    made = images_of(pixels, label, name=f"{n} pictures by {teacher.checkpoint.source}, seeds 0-{n - 1}")
    return replace(made, class_names=teacher.checkpoint.labels or made.class_names)


def _make(
    folder: Path, place: Path, sampler: Sampler, n: int, batch_size: int, progress: Callable[[int, int], None]
) -> None:
    sweep(folder.parent)
    parts = {start: place / f"{start:08d}.npy" for start in range(0, n, PART)}
    for start, path in parts.items():
        stop = min(start + PART, n)
        if not path.exists():
            x = sampler.sample(range(start, stop), batch_size=batch_size)
            with whole_file(path) as partial, partial.open("wb") as file:
                np.save(file, to_uint8(x))
        progress(stop, n)
    with whole_folder(folder, last=("report.json",)) as building:
        np.save(building / "pixels.npy", np.concatenate([np.load(path) for path in parts.values()]))
        write_text(building / "report.json", json.dumps({"recipe": dict(sampler.recipe)}))
    for path in place.iterdir():
        path.unlink()
