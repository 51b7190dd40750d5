"""A teacher's own pictures as data, where there is none: made once from stated seeds, and cached."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ddim.data import Images, cache_root, images_of, keep_array, whole_array
from ddim.files import alone, digest, sweep, whole_folder, write_text
from ddim.jobs.distil.start import fewer
from ddim.model import Model, Sampler
from ddim.pixels import to_uint8

PART, STEPS = 128, 20
PIXELS = "pixels.npy"


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
    pixels = whole_array(folder / PIXELS)
    if pixels is None:
        place = folder.with_name(folder.name + "-parts")
        place.mkdir(parents=True, exist_ok=True)
        with alone(place):  # of two commands, or of torchrun's processes, the second finds them made
            pixels = whole_array(folder / PIXELS)
            if pixels is None:
                pixels = _made(folder, place, sampler, n, batch_size, progress)
    label = torch.tensor([s % teacher.num_classes for s in range(n)]) if teacher.num_classes else None
    made = images_of(pixels, label, name=f"{n} pictures by {teacher.checkpoint.source}, seeds 0-{n - 1}")
    return replace(made, class_names=teacher.checkpoint.labels or made.class_names)


def _made(
    folder: Path, place: Path, sampler: Sampler, n: int, batch_size: int, progress: Callable[[int, int], None]
) -> npt.NDArray[np.uint8]:
    """Part by part; of what was interrupted, or is damaged, only that is made which is not as it was written."""
    sweep(folder.parent)
    parts = []
    for start in range(0, n, PART):
        stop = min(start + PART, n)
        part = whole_array(path := place / f"{start:08d}.npy")
        if part is None:
            part = to_uint8(sampler.sample(range(start, stop), batch_size=batch_size))
            keep_array(path, part)
        parts.append(part)
        progress(stop, n)
    pixels = np.concatenate(parts)
    shutil.rmtree(folder, ignore_errors=True)  # one that is damaged
    with whole_folder(folder) as building:
        write_text(building / "report.json", json.dumps({"recipe": dict(sampler.recipe)}))
        keep_array(building / PIXELS, pixels)
    for path in place.iterdir():
        path.unlink()
    return pixels
