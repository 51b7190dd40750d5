"""Measured sets of images, kept on disk: made batch by batch, each once, going on where a crash left off.

Processes share a set by taking every world-th of the same batches, and keep what they made in parts of their own.
Whoever finds that the parts together hold every image joins them to the one file that a set is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ddim.files import digest, read_tensors, write_tensors
from ddim.jobs.cluster import Over
from ddim.jobs.job import ALONE, Share
from ddim.pixels import Pixels
from ddim.refused import Refused
from ddim.stored import NUMBER, Rule, checked, is_number, is_whole, listed, object_from_json

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
    times: tuple[Any, ...] = ()

    def __len__(self) -> int:
        return len(self.features)

    def rows(self, rows: slice, shown: slice) -> Made:
        """Some of the images, with some of the pixels."""
        logits = None if self.logits is None else self.logits[rows]
        return replace(self, features=self.features[rows], logits=logits, pixels=self.pixels[shown])


class Part(NamedTuple):
    """Images of a set that follow one another, from the place `at` on."""

    at: int
    made: Made

    @property
    def end(self) -> int:
        return self.at + len(self.made)


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
    folder: Path, key: Mapping[str, Any], n: int, batch_size: int, batch: Callable[[Any], Made], share: Share = ALONE,
    *, over: Over = map, item: Callable[[slice], Any] = lambda at: at,
) -> Iterator[int | Made]:  # fmt: skip
    """Make n images batch by batch, or read them back: yields how many are done, and at last the whole set.

    Args:
        folder: where sets lie, each in one file under a hash of its key.
        key: everything that decides the set, as JSON.
        batch: places in 0..n-1, or what `item` makes of them here -> those images, measured.
        share: which batches are this process's; the whole is yielded only if the others' are there.
        over: how `batch` is called, like `map`; see `on_ray`.
    """
    path = folder / f"{digest(key)}.safetensors"
    own = path.with_suffix(".part" if share == ALONE else f".{share.rank}.part")
    mine, there, new = _kept(own), _all_parts(path), False
    if path.exists():  # looked for after the parts, which go when it comes
        yield _read(path)
        return
    saved, cost = time.monotonic(), 0.0
    wanted = (slice(i, min(i + batch_size, n)) for i in share.of(range(0, n, batch_size)))
    missing = [at for at in wanted if not any(p.at <= at.start and at.stop <= p.end for p in there)]
    for at, made in zip(missing, over(batch, map(item, missing)), strict=True):
        part, new = Part(at.start, made), True
        mine, there = [*mine, part], [*there, part]
        if time.monotonic() - saved > max(EVERY, cost / SHARE):
            began = time.monotonic()
            _write_parts(own, mine, key)
            saved = time.monotonic()
            cost = saved - began
        yield min(n, sum(len(p.made) for p in there))
    if share != ALONE and new:
        _write_parts(own, mine, key)
    yield from _finished(path, key, n, there)


def kept(folder: Path, key: Mapping[str, Any], n: int) -> int:
    """How many of the n images of that set are there already, whoever made them."""
    path = folder / f"{digest(key)}.safetensors"
    return n if path.exists() else min(n, sum(len(p.made) for p in _all_parts(path)))


def _finished(path: Path, key: Mapping[str, Any], n: int, there: Sequence[Part]) -> Iterator[Made]:
    """The set, if all of it is made: joined by this process, or by another one meanwhile."""
    whole = _whole([*there, *_all_parts(path)], n)
    if path.exists():
        whole = _read(path)
    elif whole is not None:
        _write(path, whole, key)
    if whole is not None:
        for part in _part_files(path):
            part.unlink(missing_ok=True)
        yield whole


def _whole(parts: Sequence[Part], n: int) -> Made | None:
    """Places 0..n-1 in their order, if all are there."""
    pieces: list[Made] = []
    place = 0
    while place < n:
        part = max((p for p in parts if p.at <= place < p.end), key=lambda p: p.end, default=None)
        if part is None:
            return None
        after = slice(place - part.at, None)
        pieces.append(part.made.rows(after, after))
        place = part.end
    return joined(pieces)


def _part_files(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}*.part"))


def _all_parts(path: Path) -> list[Part]:
    """What was made of a set so far, by however many processes."""
    return [part for file in _part_files(path) for part in _kept(file)]


def _write(path: Path, made: Made, key: Mapping[str, Any], **more: Any) -> None:
    """One file, whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"features": made.features, "pixels": torch.from_numpy(np.ascontiguousarray(made.pixels))}
    if made.logits is not None:
        tensors["logits"] = made.logits
    about = {"seconds_per_image": made.seconds_per_image, "nfe": made.nfe, "times": list(made.times), **more}
    write_tensors(path, tensors, {"about": json.dumps(about), "key": json.dumps(dict(key))})


def _write_parts(path: Path, parts: Sequence[Part], key: Mapping[str, Any]) -> None:
    """What one process made, in one file: neighbours become one part, as another batch size may go on from here."""
    runs: list[list[Part]] = []
    for part in sorted(parts, key=lambda p: p.at):
        if runs and runs[-1][-1].end == part.at:
            runs[-1].append(part)
        else:
            runs.append([part])
    places = [[run[0].at, run[-1].end - run[0].at, sum(len(p.made.pixels) for p in run)] for run in runs]
    _write(path, joined([p.made for run in runs for p in run]), key, places=places)


def _kept(path: Path) -> list[Part]:
    """What `_write_parts` left, if anything; version 0.1 kept the first images of a set, without saying so."""
    try:
        made, about = _opened(path)
    except (Refused, OSError):
        if path.exists():  # else there was nothing, or another process has joined it to the whole
            raise
        return []
    found, row, picture = [], 0, 0
    for at, rows, pictures in about.get("places", [[0, len(made), len(made.pixels)]]):
        part = made.rows(slice(row, row + rows), slice(picture, picture + pictures))
        found.append(Part(at, part))
        row, picture = row + rows, picture + pictures
    return found


def _read(path: Path) -> Made:
    return _opened(path)[0]


ABOUT: dict[str, Rule] = {
    "seconds_per_image": NUMBER,
    "nfe": NUMBER,
    "times": ("a list of numbers", lambda v: listed(v, is_number)),
    "places": ("places, each three whole numbers", lambda v: listed(v, _is_place)),
}


def _is_place(value: Any) -> bool:
    return len(listed(value, lambda n: is_whole(n, 0)) or ()) == 3


def _opened(path: Path) -> tuple[Made, dict[str, Any]]:
    """A set, and what the file says of it.

    Raises:
        Refused: damaged; to remove it is to make it anew.
    """
    tensors, words = read_tensors(path)
    where = f"{path} is damaged, remove it and it is made anew: it"
    about = checked(object_from_json(words.get("about", ""), where), ABOUT, where)
    features, logits, pixels = (tensors.get(name) for name in ("features", "logits", "pixels"))
    if features is None or pixels is None or any(about.get(name) is None for name in list(ABOUT)[:3]):
        raise Refused(f"{where} lacks features, pixels, or what they cost")
    rows = features.is_floating_point() and features.ndim == 2
    beside = logits is None or (logits.is_floating_point() and logits.ndim == 2 and len(logits) == len(features))
    if not (rows and beside and pixels.dtype == torch.uint8 and pixels.ndim == 4 and bool(features.isfinite().all())):
        raise Refused(f"{where} holds no finite features, one row an image, and pixels")
    made = Made(
        features, logits, pixels.numpy(), about["seconds_per_image"], about["nfe"], about["times"]
    )  # fmt: skip
    return made, about
