"""Generation as a job: exactly the images of these seeds, in a folder, whatever crashes in between.

A job is a folder with `recipe.json` (everything that decides the pixels), one PNG a seed, and, once all are
there, `manifest.json` with the sha256 of each; or tar files of many (`layouts`). Every file appears whole, so a
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

from ddim.files import Crew, read_json, sha256, sweep, whole_file
from ddim.jobs.cluster import Over
from ddim.jobs.job import ALONE, Share
from ddim.jobs.layouts import Shelves, shard_name, whole_shard, write_shard
from ddim.pixels import enlargement, grid, png_of, refuse_broken, save_png, to_uint8
from ddim.refused import Refused
from ddim.stored import is_whole

Make = Callable[[list[int]], Tensor]
"""seeds -> images (len(seeds), C, H, W), float in [-1, 1]."""

Encoded = Callable[[Sequence[int]], Iterator[list[tuple[bytes, dict[str, Any]]]]]
"""seeds -> batches of PNGs, each with what is known of it."""

PLAIN = Shelves()
FILE = re.compile(r"(\d{3,}/)?\d{6,}\.png|\d{6,}\.tar")  # what a layout's files are called
MANIFEST, GRID = "manifest.json", "grid.png"
GRID_IMAGES = 1024  # shown in grid.png: all of a job that people look at
WRITERS = 8  # threads: a disk takes many files at once nearly as fast as one


def generate(
    make: Make,
    seeds: Sequence[int],
    out: Path,
    recipe: Mapping[str, Any],
    *,
    batch_size: int,
    share: Share = ALONE,
    crew: Crew | None = None,
    layout: Shelves = PLAIN,
    over: Over = map,
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
        layout: where images lie; a shard is made by one process.
        over: how `make` is called on batch after batch, like `map`; see `on_ray`.
        recipe: kept in every PNG under "ddim", with the seed.
        classes: seed -> its class, kept there as well: the recipe's label may be a rule for all seeds.
        names: of the classes, for the grid's captions.

    The process that finds the job complete writes the manifest and the grid.

    Raises:
        Refused: an image is not finite; nothing of its batch is saved.
    """
    rows = min(batch_size, len(seeds))
    if not complete(seeds, out, layout):
        (out / MANIFEST).unlink(missing_ok=True)  # of a job that was whole once: it must not vouch for this one

    def batches(wanted: Sequence[int]) -> Iterator[list[tuple[bytes, dict[str, Any]]]]:
        firsts = range(0, len(wanted), rows)
        padded = ([*wanted[i : i + rows], *[wanted[-1]] * (i + rows - len(wanted))] for i in firsts)
        for i, images in zip(firsts, over(make, padded), strict=True):
            images, batch = images[: len(wanted) - i], wanted[i : i + rows]
            refuse_broken(images, [f"seed {s}" for s in batch])
            own = [{"seeds": s} if classes is None else {"seeds": s, "class": classes[s]} for s in batch]
            about = [{**recipe, **told} for told in own]
            with ThreadPoolExecutor(WRITERS) as pool:
                pngs = pool.map(lambda p, told: png_of(p, {"ddim": json.dumps(told)}), to_uint8(images), about)
                yield list(zip(pngs, about, strict=True))

    yield from (_shards if layout.shards else _pngs)(seeds, out, layout, batches, share, crew)
    if complete(seeds, out, layout) and not (out / MANIFEST).exists():  # one that is there vouches for what was made
        mine = range(0) if crew is not None and crew.others is False else share.of(range(len(seeds)))
        _refuse_damaged(seeds, mine, out, layout)
        _finish(seeds, out, layout, {} if classes is None else classes, names)


def _pngs(
    seeds: Sequence[int], out: Path, layout: Shelves, batches: Encoded, share: Share, crew: Crew | None
) -> Iterator[int]:
    """One file a seed: a batch is of whatever is missing."""
    for mine in share.turns(seeds, crew):
        missing = [s for s in mine if not _there(out, layout.png(s))]
        done = len(mine) - len(missing)
        yield done
        for folder in {(out / layout.png(s)).parent for s in missing}:
            folder.mkdir(exist_ok=True)
            sweep(folder)
        for batch in batches(missing):
            with ThreadPoolExecutor(WRITERS) as pool:
                list(pool.map(lambda png: _save(out / layout.png(png[1]["seeds"]), png[0]), batch))
            done += len(batch)
            yield done


def _shards(
    seeds: Sequence[int], out: Path, layout: Shelves, batches: Encoded, share: Share, crew: Crew | None
) -> Iterator[int]:
    """One file for many seeds: processes take whole shards, and begin anew what a crash cut off."""
    for mine in share.turns(range(-(-len(seeds) // layout.shards)), crew):
        done = 0
        for i in mine:
            wanted = seeds[i * layout.shards : (i + 1) * layout.shards]
            if not _there(out, shard_name(i), len(wanted)):
                for filled in write_shard(out / shard_name(i), batches(wanted)):
                    yield done + filled
            done += len(wanted)
            yield done


def _there(out: Path, name: str, images: int = 1) -> bool:
    """Whether a file need not be made: a manifest vouches for it; without one, what a disk lost is made again."""
    return (out / name).exists() and ((out / MANIFEST).exists() or _whole(out / name, images))


def _save(path: Path, png: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(png)


def _whole(path: Path, images: int = 1) -> bool:
    """Whether a PNG, or a shard of so many, is there and undamaged: each of its parts has a checksum."""
    if path.suffix == ".tar":
        return whole_shard(path, images)
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            picture.verify()
    except (OSError, SyntaxError, ValueError):  # Pillow's word for a broken PNG is SyntaxError
        return False
    return True


def _refuse_damaged(seeds: Sequence[int], mine: Sequence[int], out: Path, layout: Shelves) -> None:
    """Before a manifest vouches for files that other processes made; `mine`: places of those this one has seen."""
    each, known = layout.shards or 1, () if layout.shards else set(mine)
    sizes = (len(seeds[i : i + each]) for i in range(0, len(seeds), each))
    found = enumerate(zip(layout.files(seeds), sizes, strict=True))
    bad = [name for i, (name, size) in found if i not in known and not _whole(out / name, size)]
    if bad:
        raise Refused(
            f"{len(bad)} {'shards' if layout.shards else 'images'} in {out} are damaged, first {bad[0]}; run the same "
            "command again, with as many processes, and they are made anew"
        )


def complete(seeds: Sequence[int], out: Path, layout: Shelves = PLAIN) -> bool:
    """Whether the image of every seed is there, whoever made it."""
    return all((out / name).exists() for name in layout.files(seeds))


def _finish(
    seeds: Sequence[int], out: Path, layout: Shelves, classes: Mapping[int, int], names: Sequence[str] | None
) -> None:
    first = list(layout.pictures(seeds[:GRID_IMAGES], out))
    told = {s: names[k] if names and k < len(names) else str(k) for s, k in classes.items()}
    captions = [f"{s}: {told[s]}" if s in told else str(s) for s in seeds[:GRID_IMAGES]]
    columns = math.ceil(math.sqrt(len(first)))
    scale = enlargement(first[0].shape[0], columns)
    save_png(out / GRID, grid(first, columns, captions=captions, scale=scale))
    with whole_file(out / MANIFEST) as partial, partial.open("w") as file:  # line by line: there may be millions
        file.write(f'{{\n "images": {len(seeds)},\n "sha256": {{')
        for i, name in enumerate(layout.files(seeds)):
            file.write(f'{"," if i else ""}\n  "{name}": "{sha256(out / name)}"')
        file.write("\n }\n}")


def verify(out: Path) -> int:
    """Check a finished job against its manifest; the number of images that agree, which is all of them.

    Raises:
        Refused: no manifest; files missing, changed, or beside the manifest.
    """
    if not (out / MANIFEST).exists():
        raise Refused(f"{out} has no {MANIFEST}: the job is not finished (run the same command again) or is none")
    told = read_json(out / MANIFEST)
    wanted, images = told.get("sha256"), told.get("images")
    if (
        not (isinstance(wanted, dict) and isinstance(images, int) and is_whole(images, len(wanted)))
        or not all(FILE.fullmatch(n) and isinstance(h, str) for n, h in wanted.items())
    ):  # fmt: skip
        raise Refused(f"{out / MANIFEST} is damaged: it names no images; remove it and run the same command again")
    kind = "shards" if any(n.endswith(".tar") for n in wanted) else "images"
    missing = [n for n in wanted if not (out / n).exists()]
    if missing:
        raise Refused(f"{len(missing)} of {len(wanted)} {kind} are missing from {out}, first {missing[0]}")
    changed = [n for n, h in wanted.items() if sha256(out / n) != h]
    if changed:
        raise Refused(f"{len(changed)} of {len(wanted)} {kind} in {out} have changed, first {changed[0]}")
    there = (p.relative_to(out).as_posix() for p in out.rglob("*") if p.suffix in (".png", ".tar"))
    extra = sorted(name for name in there if name not in wanted and name != GRID)
    if extra:
        raise Refused(f"{out} holds {len(extra)} {kind} that its manifest does not name, first {extra[0]}")
    return images


def write_npz(seeds: Sequence[int], out: Path, labels: Sequence[int] | None = None, layout: Shelves = PLAIN) -> Path:
    """The finished job as the ADM evaluator's file: arr_0 uint8 (N, H, W, C), arr_1 the labels where there are any.

    Images stream from their files one by one, so memory does not grow with N.
    """
    height, width, channels = next(layout.pictures(seeds[:1], out)).shape
    path = out / f"samples_{len(seeds)}x{height}x{width}x{channels}.npz"
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as stream:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(seeds), height, width, channels)}
            np.lib.format.write_array_header_1_0(stream, header)
            for pixels in layout.pictures(seeds, out):
                stream.write(pixels.tobytes())
        if labels is not None:
            with archive.open("arr_1.npy", "w") as stream:
                np.lib.format.write_array(stream, np.asarray(labels, dtype=np.int64))
    return path
