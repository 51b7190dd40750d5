"""A data set in the latents of an autoencoder: what that says of every picture, asked once and kept in the cache."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddim.data.cache import HASHED, Images, cache_root
from ddim.data.kept import keep_words, kept_array, kept_words
from ddim.data.room import new_array
from ddim.files import alone, digest, read_tensors, sweep, weights_hash, whole_folder, write_tensors
from ddim.pixels import from_uint8
from ddim.refused import Refused

FORMAT = 2  # raise when what is stored changes
PART = 64 * 512 * 512  # pixels of the pictures that are encoded between two files
LEAST = 0.05  # of the latents' std, that they must differ by from picture to picture
ROWS, REPORT = "rows.npy", "report.json"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Spread:
    """How the latents of a data set are spread as they are drawn, before any scale.

    Attributes:
        mean: of each channel. std: of all of them about those means.
        apart: by how much the means of one place differ from picture to picture, root mean square over places.
        sha256: of the rows.
    """

    mean: tuple[float, ...]
    std: float
    apart: float
    sha256: str = ""

    @property
    def collapsed(self) -> bool:
        """Whether the latents say nothing of their pictures."""
        return not self.apart > LEAST * self.std


@dataclass(frozen=True, repr=False)
class LatentImages:
    """Latents of a data set: rows float32 (N, V, M, C, H, W), memory-mapped.

    V is 2 where pictures may be mirrored (the picture, and its mirror image), M is 2 where the autoencoder draws (the
    mean, and the std).
    """

    images: Images
    rows: Floats
    spread: Spread

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"LatentImages({self.images!r}, latents {self.shape})"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one latent."""
        c, h, w = self.rows.shape[-3:]
        return c, h, w

    def check(self) -> None:
        """That the latents say something of their pictures.

        Raises:
            Refused: the autoencoder has collapsed; with the stds.
        """
        own = self.spread
        if own.collapsed:
            raise Refused(
                f"the autoencoder has collapsed: from picture to picture of {self.images.report.source} its latents "
                f"differ by a std of {own.apart:.2g}, and their own is {own.std:.2g}, so they say nothing of a "
                "picture; train it longer, or with less weight on KL"
            )


def open_latents(
    images: Images,
    encode: Callable[[Tensor], Tensor],
    by: str,
    *,
    flip: bool = False,
    cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatentImages:
    """Encode every picture once, part by part, so that what was interrupted goes on; one process at a time.

    Args:
        encode: pictures (B, C, H, W) in [-1, 1] -> moments (B, M, *latent), on the CPU.
        by: a hash of what `encode` computes.
        flip: also of the mirror images.
        cache: where they are kept; default `cache_root()`.
        progress: called with (done, len(images)).

    Raises:
        Refused: latents that are no finite numbers. OSError: the cache cannot be written to, or the disk is full.
    """
    root = cache or cache_root()
    folder = root / f"latents-{digest([FORMAT, images.report.sha256, by, flip])}"
    if _sound(folder, images) is None:
        place = folder.with_name(folder.name + "-parts")
        place.mkdir(parents=True, exist_ok=True)
        with alone(place):
            if _sound(folder, images) is None:  # else another process has made it
                sweep(root)
                _make(folder, place, images, encode, flip, progress)
    found = _sound(folder, images)
    if found is None:
        raise OSError(f"{folder} does not hold what was just written there")
    return found


def _sound(folder: Path, images: Images) -> LatentImages | None:
    """What lies there, if it is as it was written."""
    try:
        told = kept_words(folder / REPORT)
        spread = Spread(**{**told, "mean": tuple(told["mean"])})
        rows = kept_array(folder / ROWS)
    except (OSError, ValueError, LookupError, TypeError):
        return None
    if rows.dtype != np.float32 or rows.ndim != 6 or len(rows) != len(images):
        return None
    whole = rows.nbytes > HASHED or hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest() == spread.sha256
    return LatentImages(images, rows, spread) if whole else None


def _make(
    folder: Path, place: Path, images: Images, encode: Callable[[Tensor], Tensor], flip: bool,
    progress: Callable[[int, int], None],
) -> None:  # fmt: skip
    _, h, w = images.shape
    each, parts = max(1, PART // (h * w)), list[Path]()
    for first in range(0, len(images), each):
        path, last = place / f"{first:08d}.safetensors", min(first + each, len(images))
        parts.append(path)
        if not _made(path):
            pixels = images.pixels[first:last]
            views = [encode(from_uint8(v)) for v in ([pixels, pixels[:, :, ::-1]] if flip else [pixels])]
            made = torch.stack(views, 1).float()
            if bad := int((~made.isfinite().flatten(1).all(1)).sum()):
                raise Refused(
                    f"the autoencoder gives no finite numbers for {bad} of the pictures {first} to {last - 1} of "
                    f"{images.report.source}: its weights are damaged, or its training diverged"
                )
            write_tensors(path, {ROWS: made}, {"sha256": weights_hash({ROWS: made})})
        progress(last, len(images))
    with whole_folder(folder, last=(REPORT,)) as building:
        building.chmod(0o700)  # pictures are their owner's
        keep_words(building / REPORT, asdict(_joined(building / ROWS, parts, len(images))))
    shutil.rmtree(place, ignore_errors=True)


def _made(part: Path) -> bool:
    """Whether it was encoded before an interruption, and is as it was written."""
    try:
        state, told = read_tensors(part)
    except Refused:
        return False
    return told.get("sha256") == weights_hash(state)


def _joined(path: Path, parts: list[Path], count: int) -> Spread:
    """All parts as one array; how its latents are spread."""
    first = read_tensors(parts[0])[0][ROWS].numpy()
    rows = new_array(path, (count, *first.shape[1:]), np.float32, "latents")
    found, at = hashlib.sha256(), 0
    origin = first[0, :, 0].astype(np.float64)  # (V, C, H, W); sums about it lose no digits
    totals, squares, drawn = np.zeros_like(origin), np.zeros_like(origin), np.zeros_like(origin)
    for part in parts:
        made: Floats = read_tensors(part)[0][ROWS].numpy()
        rows[at : at + len(made)] = made
        at += len(made)
        found.update(np.ascontiguousarray(made).tobytes())
        off = made[:, :, 0] - origin
        totals += off.sum(0)
        squares += np.square(off).sum(0)
        drawn += np.square(made[:, :, 1:].astype(np.float64)).sum((0, 2))
    rows.flush()  # type: ignore[attr-defined]  # a memmap, typed as the array it is used as
    means = origin + totals / count
    among = np.maximum(squares / count - np.square(totals / count), 0.0)
    mean = means.mean((0, 2, 3))
    variance = (among + np.square(means - mean[:, None, None]) + drawn / count).mean()
    return Spread(tuple(mean.tolist()), float(np.sqrt(variance)), float(np.sqrt(among.mean())), found.hexdigest())
