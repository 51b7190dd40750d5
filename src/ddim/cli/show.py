"""What people see: bars that are silent when nobody watches, tables, enlarged and labelled pictures, films, plots."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ddim
from ddim.files import whole_file, write_text
from ddim.refused import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from ddim.files import Crew
    from ddim.jobs import Share
    from ddim.pixels import Fit


@contextmanager
def progress(total: int, unit: str) -> Iterator[Callable[..., None]]:
    """A bar with time left on stderr; the function it gives takes how much is done so far, and words beside it."""
    from tqdm import tqdm

    with tqdm(total=total, unit=f" {unit}", file=sys.stderr, disable=not sys.stderr.isatty(), delay=2) as bar:

        def advance(done: int, words: str = "") -> None:
            if words:
                bar.set_postfix_str(words, refresh=False)
            bar.update(done - bar.n)

        yield advance


def unfinished(share: Share, crew: Crew | None, out: Path) -> None:
    """What a process that has done its part says of a job that is not whole: who makes the rest?"""
    if crew is None or crew.others is None:
        print(f"process {share.rank} is done with its share of {out}; without file locks nobody can tell whether "
              "others are at work: if none is, the same command again makes the rest")  # fmt: skip
    elif crew.others:
        print(f"process {share.rank} is done; others are still at work on {out}")
    else:
        raise Refused(f"something was removed from {out} while it was made; the same command again makes it anew")


def last(job: Iterator[Any], steps: int) -> Any:
    """What a search comes to; what it tells on the way is shown on a terminal."""
    for news in job:
        if not isinstance(news, str):
            return news
        if sys.stderr.isatty():
            print(f"{steps} steps: {news}", file=sys.stderr)
    raise RuntimeError("the search ended without a result")


def above(words: str) -> None:
    """A line on stderr, above a bar where there is one."""
    from tqdm import tqdm

    tqdm.write(words, file=sys.stderr)


def rows_of(facts: Sequence[tuple[str, str]]) -> str:
    """Facts by their names, one a line."""
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to the right under their heads."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join(lines)


def read_mask(
    model: ddim.Model, path: Path | None, image: Path, fit: Fit = "crop", inner: tuple[int, int] | None = None
) -> Tensor:
    """A picture as (H, W) of the model's, true where it is white; it lies over the image as that is read.

    Raises:
        Refused: there is none, or it has other proportions than the image: it would lie elsewhere.
    """
    import numpy as np
    import torch

    if path is None or not path.is_file():
        raise Refused(f"there is no mask {path}")
    mask, under = ddim.pixels.open_image(path), ddim.pixels.open_image(image)
    alike = mask.width * under.height == mask.height * under.width
    if not alike and (mask.height, mask.width) != tuple(model.picture_shape[1:]):
        raise Refused(
            f"the mask {path} is {mask.height}x{mask.width} and the image {under.height}x{under.width} (height x "
            "width): save it in the image's size"
        )
    picture = ddim.pixels.fitted(mask.convert("L"), model.picture_shape[1:], fit, inner)
    return torch.from_numpy(np.array(picture, dtype=np.uint8) >= 128).to(model.device)


def save_images(out: Path, images: Tensor, names: Sequence[str], recipe: Mapping[str, Any]) -> None:
    """One PNG an image, with the recipe in its metadata."""
    ddim.pixels.refuse_broken(images, names)
    for name, pixels in zip(names, ddim.pixels.to_uint8(images), strict=True):
        ddim.pixels.save_png(out / f"{name}.png", pixels, _text(recipe))


def save_sheet(
    path: Path,
    images: Sequence[Any],
    columns: int | None = None,
    *,
    rows: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    recipe: Mapping[str, Any] | None = None,
    scale: int | None = None,
    gap: int = 2,
) -> None:
    """Pictures side by side in one PNG, enlarged so that small ones can be seen, with words beside and above them.

    Args:
        images: batches of them, each float (n, C, H, W) in [-1, 1], one after another; or pixels.
        rows, heads, captions: words at the left of each row, above each column and below each picture.
        scale: by how much they are enlarged; default: so that small ones can be seen.
    """
    for part in images:
        if hasattr(part, "detach"):
            ddim.pixels.refuse_broken(part, [f"place {i}" for i in range(len(part))])
    batches = [ddim.pixels.to_uint8(part) if hasattr(part, "detach") else [part] for part in images]
    pixels = [picture for batch in batches for picture in batch]
    scale = scale or ddim.pixels.enlargement(pixels[0].shape[0], columns or math.ceil(math.sqrt(len(pixels))))
    picture = ddim.pixels.grid(
        pixels, columns, row_labels=rows, column_labels=heads, captions=captions, scale=scale, gap=gap
    )
    ddim.pixels.save_png(path, picture, None if recipe is None else _text(recipe))


def save_film(path: Path, images: Tensor, *, milliseconds: int) -> None:
    """An endless film there and back, lossless WebP or GIF by the suffix."""
    from PIL import Image

    scale = ddim.pixels.enlargement(images.shape[2])
    pictures = [Image.fromarray(p[..., 0] if p.shape[-1] == 1 else p) for p in ddim.pixels.to_uint8(images)]
    pictures = [p.resize((p.width * scale, p.height * scale), Image.Resampling.NEAREST) for p in pictures]
    film, kind = pictures + pictures[-2:0:-1], path.suffix[1:].upper()
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    with whole_file(path) as partial:
        film[0].save(
            partial, format=kind, save_all=True, append_images=film[1:], duration=milliseconds, loop=0, **options
        )


def save_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Plain CSV."""
    text = io.StringIO()
    csv.writer(text).writerows([head, *rows])
    write_text(path, text.getvalue())


@contextmanager
def plot_against_steps(path: Path, steps: Sequence[int], ylabel: str, title: str = "") -> Iterator[Any]:
    """Axes to draw lines against S on, both scales logarithmic; the picture is written afterwards."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    yield axes
    axes.set(xscale="log", yscale="log", xlabel="S", ylabel=ylabel, title=title)
    ticks = sorted(set(steps))
    axes.set_xticks(ticks, [str(s) for s in ticks])
    axes.xaxis.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    with whole_file(path) as partial:
        figure.savefig(partial, dpi=110, format="png")


def _text(recipe: Mapping[str, Any]) -> dict[str, str]:
    return {"ddim": json.dumps(dict(recipe))}


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3 h 20 min", "9 days"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86400:
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes} min"
    return f"{seconds / 86400:.0f} days"
