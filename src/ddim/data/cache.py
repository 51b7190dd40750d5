"""Decode once: every image of a source, checked and fitted, as one memory-mapped uint8 array on disk.

The cache folder's name is a hash of the source's fingerprint and the settings, so a changed file or option
makes a new one. A folder that agrees with its report is whole; a damaged one is built again, and what a killed build
left is removed by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ddim.data.kept import keep_words, kept_array, kept_words
from ddim.data.report import Report, refuse_unfit
from ddim.data.room import BUILD, new_array
from ddim.data.sources import Source, open_source
from ddim.files import sweep, whole_folder
from ddim.pixels import Fit, Pixels, as_pixels, fitted, open_image, show
from ddim.refused import Refused

FORMAT = 3  # raise when what is stored changes
BLOCK = 1024  # images hashed at once
HASHED = (
    2**28
)  # bytes that are read again whenever a set is opened, in a fraction of a second: what is larger is trusted
SHOWN, COLUMNS = 32, 8  # in a notebook
Fitting = Callable[[Image.Image, tuple[int, int]], Image.Image]
PIXELS, LABELS, REPORT = "pixels.npy", "labels.npy", "report.json"


@dataclass(frozen=True, repr=False)
class Images:
    """A checked data set: pixels uint8 (N, H, W, C) memory-mapped, labels int64 (N,) or None.

    source: where they lay when they were opened, as it is understood from any folder.
    """

    pixels: Pixels
    labels: npt.NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    report: Report
    source: str

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        classes = "" if self.class_names is None else f", {len(self.class_names)} classes"
        return f"Images({self.report.lines()[0]}{classes})"

    def _repr_html_(self) -> str:
        """The first of them: what a notebook shows."""
        first = np.ascontiguousarray(self.pixels[:SHOWN])
        return show(first, COLUMNS, words=f"{self!r}, the first {len(first)}")._repr_html_()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, h, w, c = self.pixels.shape
        return c, h, w


def cache_root() -> Path:
    """$DDIM_CACHE, else $XDG_CACHE_HOME/ddim, else ~/.cache/ddim."""
    own, xdg = os.environ.get("DDIM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(xdg) if xdg else Path.home() / ".cache") / "ddim"


def open_images(
    data: str | Path,
    *,
    size: tuple[int, int] | None = None,
    fit: Fit = "crop",
    inner: tuple[int, int] | None = None,
    channels: int | None = None,
    skip_unreadable: bool = False,
    labels: bool | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Images:
    """Check every image of DATA, decode it once, and open the result.

    Args:
        data: see `open_source`.
        size: (H, W); None takes the one size all images have.
        fit, inner: how other sizes are brought to `size`: see `ddim.pixels.fitted`.
        channels: 1 or 3; None: 1 if every image is grey, else 3.
        skip_unreadable: leave out files that cannot be read, instead of refusing.
        labels: whether they are wanted: see `open_source`.
        cache: where decoded sets are kept; default `cache_root()`.
        progress: called with (done, total) while decoding.

    Raises:
        Refused: no images, unreadable ones (by name), sizes that differ without `size`. OSError: cache not
            writable, or the disk full.
    """
    source = open_source(data, labels=labels)
    settings: list[Any] = [FORMAT, source.fingerprint, size, fit, channels, skip_unreadable]
    settings += [] if inner is None else [inner]
    key = hashlib.blake2b(json.dumps(settings).encode(), digest_size=12).hexdigest()
    folder = (cache or cache_root()) / key
    found = _sound(folder, source)
    if found is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, also=BUILD)
        with whole_folder(folder, last=(REPORT,)) as building:
            building.chmod(0o700)  # pictures are their owner's
            _build(source, building, size, lambda p, at: fitted(p, at, fit, inner), channels, skip_unreadable, progress)
        return _open(folder, source)
    if source.unfit:
        raise Refused(source.unfit)
    return found


def _sound(folder: Path, source: Source) -> Images | None:
    """What lies in the cache, if it is as it was written: anything else is neither a reason to fail nor trained on."""
    try:
        found = _open(folder, source)
    except (OSError, ValueError, LookupError, TypeError, EOFError):  # cut, or not what it should be
        return None
    (count, *at), report = found.pixels.shape, found.report
    if found.pixels.dtype != np.uint8 or count != report.count or report.shape != (at[-1], *at[:-1]):
        return None
    labels = None if found.labels is None else found.labels.tolist()
    if found.pixels.nbytes > HASHED:
        return found
    digest = _hash(found.pixels.shape, labels)
    for i in range(0, count, BLOCK):
        digest.update(np.ascontiguousarray(found.pixels[i : i + BLOCK]).tobytes())
    return found if digest.hexdigest() == report.sha256 else None


def _hash(shape: tuple[int, ...], labels: list[int] | None) -> Any:
    """Of a data set, before its pixels."""
    return hashlib.sha256(json.dumps([shape, labels]).encode())


def _open(folder: Path, source: Source) -> Images:
    stored = kept_words(folder / REPORT)
    report = Report(**{**stored, "shape": tuple(stored["shape"]), "source": source.name, "unread": list(source.unread)})
    labels = kept_array(folder / LABELS) if source.class_names is not None else None
    found = Path(source.name)
    place = str(found.absolute()) if found.exists() else source.name
    return Images(kept_array(folder / PIXELS), labels, source.class_names, report, place)


def _build(
    source: Source, folder: Path, size: tuple[int, int] | None, fit: Fitting, channels: int | None, skip: bool,
    progress: Callable[[int, int], None],
) -> None:  # fmt: skip
    report = Report(source.name)
    sizes, modes = Counter[str](), Counter[str]()
    labels: list[int] = []
    seen: set[bytes] = set()
    pixels: Pixels | None = None
    grey, given = True, size is not None
    for done, (name, raw, label) in enumerate(source.read(), 1):
        progress(done, source.count)
        try:
            mode, image = _decoded(name, raw)
        except ValueError as error:
            report.unreadable.append(str(error) if len(report.unreadable) < 3 else name)
            continue
        modes[mode] += 1
        sizes[f"{image.width}x{image.height}"] += 1
        size = size or (image.height, image.width)
        if pixels is None:
            pixels = new_array(folder / "all.npy", (source.count, *size, channels or 3))
        if len(sizes) > 1 and not given:
            continue  # refused below; go on to tell all sizes
        grey &= image.mode == "L"
        row = as_pixels(fit(image, size), channels or 3)
        pixels[report.count] = row
        seen.add(hashlib.blake2b(row.tobytes(), digest_size=16).digest())
        labels.append(_label(name, label, source))
        report.count += 1
    refuse_unfit(report, source, sizes if not given else {}, skip)
    assert pixels is not None  # _refuse has raised otherwise
    kept = channels or (1 if grey else 3)
    report.shape = (kept, *pixels.shape[1:3])
    report.sizes, report.modes, report.duplicates = dict(sizes), dict(modes), report.count - len(seen)
    if source.class_names is not None:
        found = Counter(labels)
        report.classes = {n: found[k] for k, n in enumerate(source.class_names)}
        np.save(folder / LABELS, np.asarray(labels, dtype=np.int64))
    _finish(folder, pixels, report, kept, labels)


def _finish(folder: Path, pixels: Pixels, report: Report, channels: int, labels: list[int]) -> None:
    """Keep the rows and channels in use, and hash them."""
    shape = (report.count, *pixels.shape[1:3], channels)
    final = new_array(folder / PIXELS, shape)
    digest = _hash(shape, labels if report.classes is not None else None)
    for i in range(0, report.count, BLOCK):
        block = np.ascontiguousarray(pixels[i : min(i + BLOCK, report.count), ..., :channels])
        final[i : i + len(block)] = block
        digest.update(block.tobytes())
    final.flush()  # type: ignore[attr-defined]  # a memmap, typed as the array it is used as
    (folder / "all.npy").unlink()
    report.sha256 = digest.hexdigest()
    keep_words(folder / REPORT, asdict(report))


def _decoded(name: str, raw: Path | bytes | Image.Image | None) -> tuple[str, Image.Image]:
    """(mode of the file, upright L or RGB picture)."""
    if raw is None:
        raise Refused(f"{name}: no image bytes")
    if isinstance(raw, Image.Image):
        return raw.mode, raw
    mode: list[str] = []
    try:
        image = open_image(raw, mode.append, name if isinstance(raw, bytes) else None)
    except OSError as error:
        raise Refused(f"{name}: {error}") from None
    return mode[0], image


def _label(name: str, label: int | None, source: Source) -> int:
    if source.class_names is None:
        return 0
    if label is None or not 0 <= label < len(source.class_names):
        raise Refused(f"{name} of {source.name} has the label {label}, outside 0..{len(source.class_names) - 1}")
    return int(label)
