"""What the commands on latents share: images in, labels, pictures, animations and tables out."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ddim.model import Model
from ddim.pixels import SUFFIXES, read_image, save_png, to_uint8
from ddim.refused import Refused

GRID_HEIGHT = 84  # pixels a picture of a grid has at least: small images are enlarged, without smoothing


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those in the folders named, sorted within each folder.

    Raises:
        Refused: nothing there.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.name != "grid.png")
        elif path.exists():
            found.append(path)
        else:
            raise Refused(f"there is no image {path}")
    if not found:
        raise Refused(f"no images in {', '.join(map(str, paths)) or 'nothing'}; name image files or folders of them")
    return found


def read_images(model: Model, paths: Sequence[Path]) -> Tensor:
    """Image files in the model's shape, (n, C, H, W) in [-1, 1], on its device."""
    return torch.stack([read_image(path, model.shape) for path in paths]).to(model.device)


def numbers(text: str, flag: str) -> list[int]:
    """ "10,20,50" as whole numbers.

    Raises:
        Refused: anything else.
    """
    try:
        return [int(word) for word in text.split(",") if word.strip()]
    except ValueError:
        raise Refused(f'{flag} is written like "10,20,50", got {text!r}') from None


def labels_of(model: Model, text: str | None, n: int) -> list[int] | None:
    """--label as a class for every image: None, "3", or one an image "3,1,4"."""
    if text is None:
        return None
    found = model.labels(numbers(text, "--label"), n)
    return None if found is None else found.tolist()


def new_file(out: Path) -> Path:
    """A path to write to.

    Raises:
        Refused: there is a file already.
    """
    if out.exists():
        raise Refused(f"{out} exists; choose another name for --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    return out


def enlargement(model: Model) -> int:
    """How many times pictures in a grid are enlarged so that small ones can be seen."""
    return max(1, -(-GRID_HEIGHT // model.shape[1]))


def save_images(out: Path, images: Tensor, names: Sequence[str], recipe: Mapping[str, Any]) -> None:
    """One PNG an image, with the recipe in its metadata."""
    for name, pixels in zip(names, to_uint8(images), strict=True):
        save_png(out / f"{name}.png", pixels, {"ddim": json.dumps(dict(recipe))})


def save_animation(path: Path, images: Tensor, *, scale: int, milliseconds: int) -> None:
    """An endless film there and back, lossless WebP or GIF by the suffix; whole or not at all."""
    pictures = [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p) for p in to_uint8(images)]
    pictures = [p.resize((p.width * scale, p.height * scale), Image.Resampling.NEAREST) for p in pictures]
    film = pictures + pictures[-2:0:-1]
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    film[0].save(partial, save_all=True, append_images=film[1:], duration=milliseconds, loop=0, **options)
    partial.replace(path)


def save_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Plain CSV, whole or not at all."""
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    with partial.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    partial.replace(path)


@contextmanager
def plot_against_steps(path: Path, steps: Sequence[int], ylabel: str, title: str = "") -> Iterator[Any]:
    """Axes to draw lines against S on, both scales logarithmic; the picture is written afterwards."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    yield axes
    axes.set(xscale="log", yscale="log", xlabel="S", ylabel=ylabel, title=title)
    ticks = sorted(set(steps))
    axes.set_xticks(ticks, [str(s) for s in ticks])
    axes.xaxis.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
