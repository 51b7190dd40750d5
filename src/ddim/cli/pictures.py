"""The options of commands that read pictures: what is left out, how a picture comes to the model's size, and what that
does to it, said.

Like `options`, a file of words: nothing here imports torch before a command runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

import ddim
from ddim.cli import typed
from ddim.refused import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from ddim.data import Images
    from ddim.metrics import Extractor

LEAST = 10  # images of a reference
Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Skipping:
    """Files that cannot be read."""

    skip_unreadable: bool = False
    """Leave out files that cannot be read and name them, instead of refusing."""

    def readable(self, files: Sequence[Path]) -> list[Path]:
        """The files; where asked, without those that cannot be read, which are named.

        Raises:
            Refused: none is left.
        """
        if not self.skip_unreadable:
            return list(files)
        kept, bad = [], []
        for file in files:
            try:
                ddim.pixels.open_image(file)
                kept.append(file)
            except (Refused, OSError):
                bad.append(file.name)
        if not kept:
            raise Refused(f"none of {len(files)} images can be read, first {bad[0]}")
        if bad:
            more = f" and {len(bad) - 8} more" if len(bad) > 8 else ""
            print(f"note: {len(bad)} of {len(files)} files cannot be read, left out: {', '.join(bad[:8])}{more}")
        return kept


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Pictures of another size than the model's."""

    fit: Literal["crop", "pad", "resize"] = "crop"
    """How pictures come to the model's size: crop cuts to the middle, pad adds black borders, resize stretches."""
    size: str | None = None
    """H or HxW below the model's: pictures come to that size, and black borders fill the rest. Default: the model's."""

    def inner(self, shape: Sequence[int]) -> Size | None:
        """--size, or None where it is that of the shape (C, H, W) itself.

        Raises:
            Refused: it is larger than the model's.
        """
        asked, (_, h, w) = typed.size_of(self.size), shape
        if asked is not None and (asked[0] > h or asked[1] > w):
            raise Refused(f"--size {self.size} is larger than the {h}x{w} that are wanted, which cannot be changed")
        return None if asked == (h, w) else asked

    def read(self, model: ddim.Model, files: Sequence[Path], seen: Counter[Size] | None = None) -> Tensor:
        """Image files in the model's shape, (n, C, H, W) in [-1, 1], on its device.

        Args:
            seen: takes their sizes, to be told at the end; without it what is done to them is told here.
        """
        import torch

        inner, sizes = self.inner(model.picture_shape), Counter[Size]()
        images = []
        for file in files:
            picture = ddim.pixels.open_image(file)
            sizes[picture.height, picture.width] += 1
            picture = ddim.pixels.fitted(picture, model.picture_shape[1:], self.fit, inner)
            images.append(ddim.pixels.from_uint8(ddim.pixels.as_pixels(picture, model.picture_shape[0])))
        if seen is None:
            self.tell(model.picture_shape, sizes)
        else:
            seen.update(sizes)
        return torch.stack(images).to(model.device)

    def tell(self, shape: tuple[int, int, int], sizes: Mapping[Size, int]) -> None:
        """Say which pictures were enlarged, shrunk or cut."""
        for line in changes(sizes, shape[1:], self.fit, self.inner(shape)):
            print(f"note: {line}")

    def suggest(self, model: ddim.Model, data: str, sizes: Mapping[Size, int]) -> None:
        """Where pictures are enlarged, the network is asked whether it knows them better within a border."""
        from ddim.cli.facts import bordered_better

        if not sizes or self.inner(model.picture_shape) is not None:
            return
        small, whole = max(sizes, key=lambda s: sizes[s]), tuple(model.picture_shape[1:])
        if small != whole and all(n <= m for n, m in zip(small, whole, strict=True)):
            words = bordered_better(model.checkpoint, data, small, self.fit)
            if words:
                print(f"note: {words}")


@dataclass(frozen=True, kw_only=True)
class Started:
    """Pictures on their way to latents."""

    start: float | None = None
    """Noise images to this time by their place's noise, and encode from there: 1 gives real images latents with the
    right law; decoding takes the noise off again."""

    @property
    def begins(self) -> float | None:
        """The time, as the process has it."""
        return None if self.start is None else typed.time_of(self.start)


@dataclass(frozen=True)
class OfData(Fitted, Skipping):
    """Real images beside the model, or beside other images."""

    data: tyro.conf.Positional[str]
    """Real images: a folder, a .parquet file, a hub id."""

    def images(self, model: ddim.Model, data: str | None = None) -> Images:
        """All of them (or those of `data`) in the model's shape; what that does to them is told."""
        found, data = self.opened(model.picture_shape, data), self.data if data is None else data
        self.suggest(model, data, sizes_of(found))
        return found

    def opened(self, shape: tuple[int, int, int], data: str | None = None) -> Images:
        """The same in a shape (C, H, W)."""
        c, h, w = shape
        found = ddim.data.open_images(
            self.data if data is None else data, size=(h, w), channels=c, fit=self.fit, inner=self.inner(shape),
            skip_unreadable=self.skip_unreadable,
        )  # fmt: skip
        bad = found.report.unreadable
        if bad:
            more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
            print(f"note: {len(bad)} files cannot be read, left out: {'; '.join(bad[:3])}{more}")
        self.tell(shape, sizes_of(found))
        return found


@dataclass(frozen=True)
class Compared(OfData):
    """Real images that others are measured against."""

    extractor: str | None = field(default=None, kw_only=True)
    """What features are compared: mnist (grey), colour (RGB), inception (FID), dinov2, pixels, or a file: .onnx, or
    .safetensors with weights of the mnist or colour network. Default: mnist or colour, by the images' channels."""
    trust_code: bool = field(default=False, kw_only=True)
    """Also take --extractor from a TorchScript (.pt) or .pt2 file. Such files can run any code."""
    held_out: str | None = field(default=None, kw_only=True)
    """Other real images for the noise floor (a test set); default: COUNT of DATA, taken out of the reference."""
    reference: int = field(default=50_000, kw_only=True)
    """Real images of the reference, at most."""

    def look(self, channels: int, device: Any) -> Extractor:
        """The extractor, with its weights.

        Raises:
            Refused: --reference is too small to compare with.
        """
        if self.reference < LEAST:
            raise Refused(f"--reference must be at least {LEAST}, got {self.reference}")
        name = self.extractor or ddim.metrics.usual(channels)
        return ddim.metrics.extractor(name, device, trust_code=self.trust_code)


def sizes_of(images: Images) -> dict[Size, int]:
    """How many files have which size (H, W)."""
    return {sized(name): n for name, n in images.report.sizes.items()}


def sized(name: str) -> Size:
    """ "WxH", as a report of data has it, as (H, W)."""
    w, _, h = name.partition("x")
    return int(h), int(w)


def changes(sizes: Mapping[Size, int], whole: Size, fit: str, inner: Size | None) -> list[str]:
    """What bringing pictures of these sizes (H, W) to the model's does to them, a line each; nothing if nothing."""
    h, w = inner or whole

    def scale(size: Size) -> float:
        a, b = h / size[0], w / size[1]
        return min(a, b) if fit == "pad" else max(a, b)

    total, lines = sum(sizes.values()), []
    for word, chosen in (
        ("enlarged", {s: n for s, n in sizes.items() if scale(s) > 1}),
        ("shrunk", {s: n for s, n in sizes.items() if scale(s) < 1}),
    ):
        if not chosen:
            continue
        usual, n = max(chosen, key=lambda s: chosen[s]), sum(chosen.values())
        some = f"of {usual[0]}x{usual[1]}" + (f" and {len(chosen) - 1} other sizes" if len(chosen) > 1 else "")
        line = f"{n} of {total} images ({some}, height x width) are {word} to {h}x{w}"
        if fit == "crop" and any(s[0] * w != s[1] * h for s in chosen):
            line += " and cut to the middle; --fit pad or resize keeps all of them"
        if word == "enlarged" and inner is None and usual[0] <= h and usual[1] <= w:
            line += f"; --size {typed.typed_size(usual)} puts them into a black border instead"
        lines.append(line)
    return lines
