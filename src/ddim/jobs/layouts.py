"""Where the images of a job lie: PNGs in one folder, PNGs in folders of a thousand, or shards.

A shard is a tar file of so many images as WebDataset reads it: NNNNNN.png and NNNNNN.json (the recipe, the seed, the
class) one after the other, named by seed. Its bytes are a function of the images: no times, no owners.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ddim.files import read_json, whole_file
from ddim.jobs.job import RECIPE
from ddim.refused import Refused

MANY = 10_000  # PNGs; a folder of more is slow to list
THOUSAND = 1000


@dataclass(frozen=True)
class Shelves:
    """PNGs, in folders of `folders` seeds where that is above 0; or tar files of `shards` images each."""

    folders: int = 0
    shards: int = 0

    def recipe(self) -> dict[str, int]:
        """What a job's recipe says of it: nothing of the plain one."""
        return {name: count for name, count in vars(self).items() if count}

    def png(self, seed: int) -> str:
        """The image of seed 7 is 000007.png, or 000/000007.png."""
        name = f"{seed:06d}.png"
        return f"{seed // self.folders:03d}/{name}" if self.folders else name

    def files(self, seeds: Sequence[int]) -> Iterator[str]:
        """The names of all the job's files with images, in the order of the seeds."""
        if self.shards:
            yield from (shard_name(i) for i in range(-(-len(seeds) // self.shards)))
        else:
            yield from (self.png(s) for s in seeds)

    def pictures(self, seeds: Sequence[int], out: Path) -> Iterator[npt.NDArray[np.uint8]]:
        """The images of the job's first seeds, in their order, one at a time.

        Raises:
            OSError: one is not there.
        """
        if not self.shards:
            yield from (_pixels(out / self.png(s)) for s in seeds)
            return
        for first in range(0, len(seeds), self.shards):
            wanted = seeds[first : first + self.shards]
            with tarfile.open(out / shard_name(first // self.shards)) as tar:
                held = (tar.extractfile(member) for member in tar if member.name.endswith(".png"))
                yield from (_pixels(file) for _, file in zip(wanted, held, strict=False))


def layout_of(out: Path, images: int, shards: int) -> Shelves:
    """The layout of a job begun or gone on with: an older one keeps its own; many PNGs lie in folders of a thousand.

    Raises:
        Refused: fewer than 0 images a shard.
    """
    if shards < 0:
        raise Refused(f"`shards` is how many images a tar file holds, 1 or more, got {shards}")
    if shards:
        return Shelves(shards=shards)
    if (out / RECIPE).is_file():
        kept = read_json(out / RECIPE).get("folders", 0)
        return Shelves(THOUSAND if kept else 0)
    return Shelves(THOUSAND if images > MANY else 0)


def shard_name(i: int) -> str:
    """The first shard is 000000.tar."""
    return f"{i:06d}.tar"


def whole_shard(path: Path, images: int) -> bool:
    """Whether a shard is there with so many images, each undamaged."""
    try:
        with tarfile.open(path) as tar:
            found = 0
            for member in tar:
                file = tar.extractfile(member)
                if file is not None and member.name.endswith(".png"):
                    with Image.open(file, formats=("PNG",)) as picture:
                        picture.verify()
                    found += 1
    except (OSError, tarfile.TarError, SyntaxError, ValueError):
        return False
    return found == images


def write_shard(path: Path, samples: Iterable[Sequence[tuple[bytes, Mapping[str, Any]]]]) -> Iterator[int]:
    """Fill one shard batch by batch, whole or not at all; yields how many images it holds after each.

    Args:
        samples: batches of PNGs with what is known of them, their seed under "seeds".
    """
    done = 0
    with whole_file(path) as partial, tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
        for batch in samples:
            for png, about in batch:
                _add(tar, f"{about['seeds']:06d}.png", png)
                _add(tar, f"{about['seeds']:06d}.json", json.dumps(dict(about)).encode())
            tar.getmembers().clear()  # tarfile keeps every header; a million of them are a gigabyte
            done += len(batch)
            yield done


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # of no time and nobody
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))


def _pixels(source: Any) -> npt.NDArray[np.uint8]:
    with Image.open(source, formats=("PNG",)) as picture:
        pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels
