"""Likelihoods of pictures as a job: bits a dimension, image by image, and what each part of their error comes to.

A batch's numbers lie in a file of their own as soon as they are known, so an interrupted job goes on where it stopped.
Dequantisation and probes are functions of (seed, place of the picture, draw) alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddim.denoise import Denoiser
from ddim.files import Crew, read_json, write_json
from ddim.jobs.cluster import Over
from ddim.jobs.job import ALONE, Share
from ddim.pixels import Space
from ddim.process import generator
from ddim.refused import Refused
from ddim.uses import likelihood

TIGHTER = 10.0  # by how much the tolerance is tightened where the solver's part of the error is measured
PARTS = "parts"
Rows = list[dict[str, float]]
Levels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Scoring:
    """How pictures are scored.

    Attributes:
        tolerance, probes: see `ddim.uses.likelihood`; probes None is the exact trace.
        trace_error: its `error`, in bits a dimension: as many probes as bring each picture's there.
        bits: of a level, at most those the pictures are stored in: fewer merge 2, 4, .. neighbouring levels into one.
        upside_down: score each picture upside down too.
        draws: dequantisations of each picture, at least 2: one alone has no spread.
        checked: the first so many pictures are scored at a tenth of the tolerance too.
        seed: of dequantisation and probes.
    """

    tolerance: float = 1e-4
    probes: int | None = 4
    draws: int = 2
    checked: int = 4
    seed: int = 0
    trace_error: float | None = None
    bits: int = 8
    upside_down: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise Refused(f"`bits` must lie from 1 to 16, got {self.bits}")
        if self.trace_error is not None and (self.probes is None or not 0 < self.trace_error < math.inf):
            raise Refused(f"`trace_error` must be above 0, and `probes` at least 2; got {self.trace_error} and "
                          f"{self.probes or 'the exact trace'}")  # fmt: skip
        if self.draws < 2:
            raise Refused(f"`draws` must be at least 2, or nobody knows what dequantisation does; got {self.draws}")
        if self.checked < 1:
            raise Refused(f"`checked` must be at least 1, or nobody knows what the solver errs by; got {self.checked}")


@dataclass(frozen=True)
class Budget:
    """Mean bits a dimension, and its standard error part by part: all in bits a dimension.

    Attributes:
        solver: mean change when the tolerance is tightened tenfold, over the checked pictures.
        trace: of the probes, whose mean number stands beside it (0: exact). dequantisation: of the draws. sample: of
            this many pictures, which has the others in it.
        likelier_upright: share of the pictures that are likelier than the same upside down, where that was asked for.
    """

    bits: float
    solver: float
    trace: float
    dequantisation: float
    sample: float
    probes: float
    likelier_upright: float | None


def score_images(
    denoise: Callable[[list[int]], Denoiser], space: Space, pixels: Levels, how: Scoring,
    folder: Path, *, batch_size: int = 16, device: torch.device, share: Share = ALONE,
    crew: Crew | None = None, over: Over = map,
) -> Iterator[int]:  # fmt: skip
    """Score pictures (N, H, W, C), uint8 or uint16, batch by batch into `folder`; yields how many of this process's
    are done.

    The last one at work (of `crew`) scores what those left that died.

    Args:
        denoise: places of pictures -> the denoiser with what it is told of them.
        space: from pictures in [-1, 1] to the states that are scored.
        over: how batches are scored, like `map`; see `on_ray`.

    Raises:
        Refused: the states are an autoencoder's latents; more bits asked for than are stored.
    """
    space.refuse_lossy("a likelihood")
    width(pixels, how.bits)
    (folder / PARTS).mkdir(parents=True, exist_ok=True)

    def batch(first: int) -> tuple[list[int], Levels]:
        places = list(range(first, min(first + batch_size, len(pixels))))
        return places, pixels[places]

    def score(said: tuple[list[int], Levels]) -> Rows:
        places, own = said
        return _scored(denoise(places), space, own, how, places, device)

    done = 0
    for turn in share.turns(range(0, len(pixels), batch_size), crew):
        missing = dict.fromkeys(first for first in turn if not _part(folder, first).exists())
        done += sum(min(batch_size, len(pixels) - first) for first in turn if first not in missing)
        yield done
        for first, rows in zip(missing, over(score, map(batch, missing)), strict=True):
            write_json(_part(folder, first), {"rows": rows})
            done += min(batch_size, len(pixels) - first)
            yield done


def scored_rows(folder: Path, n: int, batch_size: int) -> Rows | None:
    """One row a picture and draw; None where other processes are still at work."""
    paths = [_part(folder, first) for first in range(0, n, batch_size)]
    if not all(path.exists() for path in paths):
        return None
    return [row for path in paths for row in read_json(path)["rows"]]


def error_budget(rows: Rows) -> Budget:
    """The mean over pictures, and where its error comes from."""
    column = {name: np.array([row.get(name, math.nan) for row in rows]) for name in (*rows[0], "tighter")}
    by_image = bits_by_image(rows)
    n, draws = len(by_image), len(rows) / len(by_image)
    spread = [np.var(column["bits"][column["place"] == place], ddof=1) for place in by_image]
    there = ~np.isnan(column["tighter"])
    values = np.array(list(by_image.values()))
    return Budget(
        bits=float(values.mean()),
        solver=float(np.abs(column["bits"] - column["tighter"])[there].mean()),
        trace=float(np.sqrt(np.square(column["error"]).sum())) / len(rows),
        dequantisation=math.sqrt(float(np.mean(spread)) / draws / n),
        sample=float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan,
        probes=float(column["probes"].mean()),
        likelier_upright=_upright(rows, by_image) if "upside_down" in rows[0] else None,
    )


def _upright(rows: Rows, by_image: dict[int, float]) -> float:
    flipped = bits_by_image(rows, "upside_down")
    return float(np.mean([bits < flipped[place] for place, bits in by_image.items()]))


def bits_by_image(rows: Rows, column: str = "bits") -> dict[int, float]:
    """Bits a dimension of each picture, by its place: the mean over draws. Or another column."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(int(row["place"]), []).append(row[column])
    return {place: sum(values) / len(values) for place, values in found.items()}


def width(pixels: Levels, bits: int) -> float:
    """Of a level of so many bits, in pictures' [-1, 1], where levels are stored in 8 or 16.

    Raises:
        Refused: fewer are stored.
    """
    stored = 8 * pixels.dtype.itemsize
    if bits > stored:
        raise Refused(f"`bits` = {bits}, but these pictures are stored in {stored}")
    return float(2 ** (stored - bits) * 2 / (2**stored - 1))


def dequantised(pixels: Levels, places: list[int], how: Scoring, draw: int) -> Tensor:
    """Pictures (B, C, H, W), float64: of b stored bits (k + U - 1/2) 2/(2^b - 1) - 1 for level k, U uniform on 0..1.

    Fewer bits: k and U are those of 2^(b - bits) levels together.
    """
    stored = 8 * pixels.dtype.itemsize
    merged = 2 ** (stored - how.bits)
    noise = np.stack([generator(how.seed, f"dequantise {place}", draw).random(pixels.shape[1:]) for place in places])
    x = ((pixels // merged + noise) * merged - 0.5) * (2 / (2**stored - 1)) - 1.0
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def _scored(
    denoise: Denoiser, space: Space, pixels: Levels, how: Scoring, places: list[int], device: torch.device
) -> Rows:
    rows: Rows = []
    unit = width(pixels, how.bits) / space.unit
    for draw in range(how.draws):
        x = space.encode(dequantised(pixels, places, how, draw)).to(device)
        own = _bits(denoise, x, unit, how, places, draw)
        few = [i for i, place in enumerate(places) if place < how.checked] if draw == 0 else []
        if few:
            part, tighter = denoise.rows(torch.tensor(few)), replace(how, tolerance=how.tolerance / TIGHTER)
            again = _bits(part, x[few], unit, tighter, [places[i] for i in few], draw)
            for i, one in zip(few, again, strict=True):
                own[i]["tighter"] = one["bits"]
        if how.upside_down:
            for row, one in zip(own, _bits(denoise, x.flip(-1, -2), unit, how, places, draw), strict=True):
                row["upside_down"] = one["bits"]
        rows += own
    return rows


def _bits(denoise: Denoiser, x: Tensor, unit: float, how: Scoring, places: list[int], draw: int) -> Rows:
    """Bits a dimension of states x, whose levels are `unit` wide."""
    seeds = [((how.seed << 32) + place << 8) + draw for place in places]
    d = x[0].numel()
    bits = math.log(2.0) * d  # nats that make one bit a dimension
    error = None if how.trace_error is None else how.trace_error * bits
    found = likelihood(denoise, x, tolerance=how.tolerance, probes=how.probes, error=error, seeds=seeds)
    columns = {
        "bits": -found.log_prob / bits - math.log2(unit), "error": found.standard_error / bits, "probes": found.probes,
    }  # fmt: skip
    values = {name: column.tolist() for name, column in columns.items()}
    return [
        {"place": place, "draw": draw, **{name: values[name][i] for name in values}} for i, place in enumerate(places)
    ]


def _part(folder: Path, first: int) -> Path:
    return folder / PARTS / f"{first:08d}.json"
