"""Likelihoods of pictures as a job: bits a dimension, image by image, and what each part of their error comes to.

A batch's numbers lie in a file of their own as soon as they are known, so an interrupted job goes on where it stopped.
Dequantisation and probes are functions of (seed, place of the picture, draw) alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

LEVELS = 255  # steps from black to white
TIGHTER = 10.0  # by how much the tolerance is tightened where the solver's part of the error is measured
PARTS = "parts"
Rows = list[dict[str, float]]


@dataclass(frozen=True)
class Scoring:
    """How pictures are scored.

    Attributes:
        tolerance, probes: see `ddim.uses.likelihood`; probes None is the exact trace.
        draws: dequantisations of each picture, at least 2: one alone has no spread.
        checked: the first so many pictures are scored at a tenth of the tolerance too.
        seed: of dequantisation and probes.
    """

    tolerance: float = 1e-4
    probes: int | None = 4
    draws: int = 2
    checked: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise Refused(f"`draws` must be at least 2, or nobody knows what dequantisation does; got {self.draws}")
        if self.checked < 1:
            raise Refused(f"`checked` must be at least 1, or nobody knows what the solver errs by; got {self.checked}")


@dataclass(frozen=True)
class Budget:
    """Mean bits a dimension, and its standard error part by part: all in bits a dimension.

    Attributes:
        solver: mean change when the tolerance is tightened tenfold, over the checked pictures.
        trace: of the probes. dequantisation: of the draws. sample: of this many pictures, which has the others in it.
    """

    bits: float
    solver: float
    trace: float
    dequantisation: float
    sample: float


def score_images(
    denoise: Callable[[list[int]], Denoiser], space: Space, pixels: npt.NDArray[np.uint8], how: Scoring,
    folder: Path, *, batch_size: int = 16, device: torch.device, share: Share = ALONE,
    crew: Crew | None = None, over: Over = map,
) -> Iterator[int]:  # fmt: skip
    """Score pictures (N, H, W, C) batch by batch into `folder`; yields how many of this process's are done.

    The last one at work (of `crew`) scores what those left that died.

    Args:
        denoise: places of pictures -> the denoiser with what it is told of them.
        space: from pictures in [-1, 1] to the states that are scored.
        over: how batches are scored, like `map`; see `on_ray`.

    Raises:
        Refused: the states are an autoencoder's latents.
    """
    space.refuse_lossy("a likelihood")
    (folder / PARTS).mkdir(parents=True, exist_ok=True)

    def batch(first: int) -> tuple[list[int], npt.NDArray[np.uint8]]:
        places = list(range(first, min(first + batch_size, len(pixels))))
        return places, pixels[places]

    def score(said: tuple[list[int], npt.NDArray[np.uint8]]) -> Rows:
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
    )


def bits_by_image(rows: Rows) -> dict[int, float]:
    """Bits a dimension of each picture, by its place: the mean over draws."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(int(row["place"]), []).append(row["bits"])
    return {place: sum(values) / len(values) for place, values in found.items()}


def dequantised(pixels: npt.NDArray[np.uint8], places: list[int], how: Scoring, draw: int) -> Tensor:
    """Pictures (B, C, H, W), float64: (k + U - 1/2)/127.5 - 1 for level k, U uniform on 0..1."""
    noise = np.stack([generator(how.seed, f"dequantise {place}", draw).random(pixels.shape[1:]) for place in places])
    x = (pixels.astype(np.float64) + noise - 0.5) * (2.0 / LEVELS) - 1.0
    return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()


def _scored(
    denoise: Denoiser,
    space: Space,
    pixels: npt.NDArray[np.uint8],
    how: Scoring,
    places: list[int],
    device: torch.device,
) -> Rows:
    rows: Rows = []
    for draw in range(how.draws):
        x = space.encode(dequantised(pixels, places, how, draw)).to(device)
        said = _bits(denoise, x, space, how.tolerance, how, places, draw)
        own = [{"place": place, "draw": draw, **one} for place, one in zip(places, said, strict=True)]
        few = [i for i, place in enumerate(places) if place < how.checked] if draw == 0 else []
        if few:
            part = denoise.rows(torch.tensor(few))
            again = _bits(part, x[few], space, how.tolerance / TIGHTER, how, [places[i] for i in few], draw)
            for i, one in zip(few, again, strict=True):
                own[i]["tighter"] = one["bits"]
        rows += own
    return rows


def _bits(
    denoise: Denoiser, x: Tensor, space: Space, tolerance: float, how: Scoring, places: list[int], draw: int
) -> Rows:
    seeds = [((how.seed << 32) + place << 8) + draw for place in places]
    found = likelihood(denoise, x, tolerance=tolerance, probes=how.probes, seeds=seeds)
    nats, d = math.log(2.0), x[0].numel()
    width = 2.0 / LEVELS / space.unit  # of a level, in states
    bits = -found.log_prob / nats / d - math.log2(width)
    error = found.standard_error / nats / d
    return [{"bits": b, "error": e} for b, e in zip(bits.tolist(), error.tolist(), strict=True)]


def _part(folder: Path, first: int) -> Path:
    return folder / PARTS / f"{first:08d}.json"
