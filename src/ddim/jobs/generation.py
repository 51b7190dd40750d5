"""Generation as a job: exactly the images of these seeds, in a folder, whatever crashes in between.

A job is a folder with `recipe.json` (everything that decides the pixels), one PNG a seed, and, once all are
there, `manifest.json` with the sha256 of each. Every file appears whole, so a
file that exists is done: a restart makes what is missing, and several processes share a job by taking every
world-th seed. Each network call has the same number of rows, the last ones padded, because the kernels a
library picks depend on that number: so the bytes do not depend on the number of processes nor on restarts.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ddim.files import Crew, read_json, sha256, whole_file, write_text
from ddim.jobs.job import ALONE, Share
from ddim.pixels import Pixels, enlargement, grid, refuse_broken, save_png, to_uint8
from ddim.refused import Refused

Make = Callable[[list[int]], Tensor]
"""seeds -> images (len(seeds), C, H, W), float in [-1, 1]."""

IMAGE = re.compile(r"\d{6,}\.png")  # what `file_name` gives
MANIFEST, GRID = "manifest.json", "grid.png"
GRID_IMAGES = 1024  # shown in grid.png: all of a job that people look at
WRITERS = 8  # threads: a disk takes many files at once nearly as fast as one


def file_name(seed: int) -> str:
    """The image of seed 7 is 000007.png."""
    return f"{seed:06d}.png"


def generate(
    make: Make,
    seeds: Sequence[int],
    out: Path,
    recipe: Mapping[str, Any],
    *,
    batch_size: int,
    share: Share = ALONE,
    crew: Crew | None = None,
    classes: Mapping[int, int] | None = None,
    names: Sequence[str] | None = None,
) -> Iterator[int]:
    """Make what is missing of this process's share, yielding how many images of the share are done.

    Where others are gone without theirs, theirs are made too.

    Args:
        make: seeds -> images; called with exactly min(batch_size, len(seeds)) seeds every time.
        seeds: the whole job's seeds, of which this process takes its share.
        out: the job's folder, from `open_job`.
        crew: the processes at work there, this one among them (`crew_of`).
        recipe: kept in every PNG under "ddim", with the seed.
        classes: seed -> its class, kept there as well: the recipe's label may be a rule for all seeds.
        names: of the classes, for the grid's captions.

    The process that finds the job complete writes the manifest and the grid.

    Raises:
        Refused: an image is not finite; nothing of its batch is saved.
    """
    rows = min(batch_size, len(seeds))
    if not complete(seeds, out):
        (out / MANIFEST).unlink(missing_ok=True)  # of a job that was whole once: it must not vouch for this one
    mine: Sequence[int] = ()
    for mine in share.turns(seeds, crew):
        missing = [s for s in mine if not _there(out, s)]
        done = len(mine) - len(missing)
        yield done
        for i in range(0, len(missing), rows):
            batch = missing[i : i + rows]
            images = make(batch + [batch[-1]] * (rows - len(batch)))[: len(batch)]
            refuse_broken(images, [f"seed {s}" for s in batch])
            own = [{"seeds": s} if classes is None else {"seeds": s, "class": classes[s]} for s in batch]
            with ThreadPoolExecutor(WRITERS) as pool:
                list(pool.map(lambda about, p: _save(out, {**recipe, **about}, p), own, to_uint8(images)))
            done += len(batch)
            yield done
    if complete(seeds, out) and not (out / MANIFEST).exists():  # one that is there vouches for what was made
        _refuse_damaged(sorted(set(seeds) - set(mine)), out)
        _finish(seeds, out, {} if classes is None else classes, names)


def _there(out: Path, seed: int) -> bool:
    """Whether an image need not be made: a manifest vouches for it; without one, what a disk lost is made again."""
    path = out / file_name(seed)
    return path.exists() and ((out / MANIFEST).exists() or _whole(path))


def _save(out: Path, recipe: Mapping[str, Any], pixels: Pixels) -> None:
    save_png(out / file_name(recipe["seeds"]), pixels, {"ddim": json.dumps(recipe)})


def _whole(path: Path) -> bool:
    """Whether a PNG is there and undamaged: each of its parts has a checksum."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError):  # Pillow's word for a broken PNG is SyntaxError
        return False
    return True


def _refuse_damaged(seeds: Sequence[int], out: Path) -> None:
    """Before a manifest vouches for images that other processes made."""
    bad = [s for s in seeds if not _whole(out / file_name(s))]
    if bad:
        raise Refused(
            f"{len(bad)} images in {out} are damaged, first {file_name(bad[0])}; run the same command again, with as "
            "many processes, and they are made anew"
        )


def complete(seeds: Sequence[int], out: Path) -> bool:
    """Whether the image of every seed is there, whoever made it."""
    return all((out / file_name(s)).exists() for s in seeds)


def _finish(seeds: Sequence[int], out: Path, classes: Mapping[int, int], names: Sequence[str] | None) -> None:
    first = [np.asarray(Image.open(out / file_name(s), formats=("PNG",))) for s in seeds[:GRID_IMAGES]]
    told = {s: names[k] if names and k < len(names) else str(k) for s, k in classes.items()}
    captions = [f"{s}: {told[s]}" if s in told else str(s) for s in seeds[:GRID_IMAGES]]
    columns = math.ceil(math.sqrt(len(first)))
    scale = enlargement(first[0].shape[0], columns)
    save_png(out / GRID, grid(first, columns, captions=captions, scale=scale))
    hashes = {file_name(s): sha256(out / file_name(s)) for s in seeds}
    write_text(out / MANIFEST, json.dumps({"images": len(hashes), "sha256": hashes}, indent=1))


def verify(out: Path) -> int:
    """Check a finished job against its manifest; the number of images that agree, which is all of them.

    Raises:
        Refused: no manifest; images missing, changed, or beside the manifest.
    """
    if not (out / MANIFEST).exists():
        raise Refused(f"{out} has no {MANIFEST}: the job is not finished (run the same command again) or is none")
    wanted = read_json(out / MANIFEST).get("sha256")
    if not isinstance(wanted, dict) or not all(IMAGE.fullmatch(n) and isinstance(h, str) for n, h in wanted.items()):
        raise Refused(f"{out / MANIFEST} is damaged: it names no images; remove it and run the same command again")
    missing = [n for n in wanted if not (out / n).exists()]
    if missing:
        raise Refused(f"{len(missing)} of {len(wanted)} images are missing from {out}, first {missing[0]}")
    changed = [n for n, h in wanted.items() if sha256(out / n) != h]
    if changed:
        raise Refused(f"{len(changed)} of {len(wanted)} images in {out} have changed, first {changed[0]}")
    extra = sorted({p.name for p in out.glob("*.png")} - {*wanted, GRID})
    if extra:
        raise Refused(f"{out} holds {len(extra)} images that its manifest does not name, first {extra[0]}")
    return len(wanted)


def write_npz(seeds: Sequence[int], out: Path, labels: Sequence[int] | None = None) -> Path:
    """The finished job as the ADM evaluator's file: arr_0 uint8 (N, H, W, C), arr_1 the labels where there are any.

    Images stream from the PNGs one by one, so memory does not grow with N.
    """
    height, width, channels = _pixels(out / file_name(seeds[0])).shape
    path = out / f"samples_{len(seeds)}x{height}x{width}x{channels}.npz"
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(seeds), height, width, channels)}
            np.lib.format.write_array_header_1_0(stream, header)
            for seed in seeds:
                stream.write(_pixels(out / file_name(seed)).tobytes())
        if labels is not None:
            with archive.open("arr_1.npy", "w") as stream:
                np.lib.format.write_array(stream, np.asarray(labels, dtype=np.int64))
    return path


def _pixels(path: Path) -> np.ndarray[Any, Any]:
    pixels = np.asarray(Image.open(path, formats=("PNG",)))
    return pixels[..., None] if pixels.ndim == 2 else pixels
