"""Where images come from: a folder, a folder per class, Parquet files, a hub id, or scikit-learn's digits.

A source knows how many images it has, how to read them one after the other, and a fingerprint that changes
when its files do. It decodes nothing: `cache` does that once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddim.data.columns import check_images, check_labels, class_names, first_line, numbered
from ddim.pixels import SUFFIXES
from ddim.refused import Refused

Raw = tuple[str, Path | bytes | Image.Image | None, int | None]
"""(name, file or bytes or picture, label); None for a row without an image."""

UNREAD = frozenset({".heic", ".heif"})  # Pillow has no decoder of its own
IMAGE_COLUMNS, LABEL_COLUMNS = ("image", "img"), ("label", "labels", "fine_label")


@dataclass(frozen=True)
class Source:
    """What `open_source` found: the number of images, their classes, and how to read them in order."""

    name: str
    count: int
    class_names: tuple[str, ...] | None
    fingerprint: str
    read: Callable[[], Iterator[Raw]]
    unread: tuple[str, ...] = ()
    """Pictures in a format that is not read (HEIC), by name: left out, and told."""
    unfit: str | None = None
    """Why this is no data set as it was asked for; said together with what is wrong with its images."""


def open_source(data: str | Path, *, labels: bool | None = None) -> Source:
    """Find out what DATA is and list its images without decoding any.

    Args:
        data: a folder of images, a folder of one folder per class, a Parquet file or folder of them, "digits",
            or a hub id "owner/name" (its "train" split).
        labels: True: they are wanted, and pictures beside folders with pictures refused; None: those there are; False:
            a label column that is none is passed over, not refused. Without True such folders are one set.

    Raises:
        Refused: nothing there, nothing in it, or not readable; names the path and the remedy.
    """
    path = Path(data)
    if path.is_dir():
        return _folder(path, labels)
    if path.is_file():
        if path.suffix.lower() != ".parquet":
            raise Refused(f"{path} is a single file; DATA is a folder of images, a .parquet file, 'digits' or a hub id")
        return _parquet(path, [path], labels is not False)
    if str(data) == "digits":
        return _digits()
    if str(data).count("/") == 1 and not str(data).startswith((".", "/", "~")):
        return _hub(str(data), labels is not False)
    raise Refused(
        f"there is no folder or file {path}; DATA is a folder of images, a .parquet file, 'digits' or a hub id"
    )


def _folder(root: Path, wanted: bool | None) -> Source:
    tables = sorted(p for p in root.iterdir() if p.suffix.lower() == ".parquet")
    if tables:
        return _parquet(root, tables, wanted is not False)
    flat = _image_files(root, root.iterdir())
    classes = {
        d.name: _image_files(root, d.rglob("*")) for d in sorted(root.iterdir()) if d.is_dir() and d.name[0] != "."
    }
    classes = {name: files for name, files in classes.items() if files}
    unread = tuple(str(p.relative_to(root)) for p in _image_files(root, root.rglob("*"), UNREAD))
    if not flat and not classes:
        raise Refused(
            f"{root} holds no images (looked for {', '.join(sorted(SUFFIXES))}) and no .parquet file"
            + (f"; {told_unread(unread)}" if unread else "")
        )
    unfit = None
    if flat and classes and wanted is True:
        unfit = (
            f"{root} holds {len(flat)} images beside {len(classes)} folders with images; give `labels` ignore to take "
            "all of them as one set, or put all images in class folders"
        )
    names = tuple(classes) if not flat else None
    files: list[tuple[Path, int | None]] = [(f, k) for k, c in enumerate(classes.values()) for f in c]
    if flat:
        files = [(f, None) for f in sorted([*flat, *(f for f, _ in files)])]
    stats = [(str(f.relative_to(root)), *_stamp(f)) for f, _ in files]

    def read() -> Iterator[Raw]:
        for file, label in files:
            yield str(file.relative_to(root)), file, label

    return Source(str(root), len(files), names, _digest("folder", str(root.resolve()), stats), read, unread, unfit)


def told_unread(names: Sequence[str]) -> str:
    """How many pictures are in a format that is not read, which, and what to do."""
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (
        f"left out: {len(names)} in HEIC, which Pillow does not read ({', '.join(names[:10])}{more}); "
        "save them as JPEG (Mac: sips -s format jpeg *.HEIC; Linux: heif-convert; iPhone: Settings, Camera, Formats, "
        "Most Compatible)"
    )


def _image_files(root: Path, paths: Iterable[Path], suffixes: Collection[str] = SUFFIXES) -> list[Path]:
    """Those that are images, and neither hidden nor below a hidden folder (thumbnails, versions)."""
    images = (p for p in paths if p.suffix.lower() in suffixes and p.is_file() and not _is_overview(p))
    return sorted(p for p in images if not any(part[0] == "." for part in p.relative_to(root).parts))


def _is_overview(path: Path) -> bool:
    """Whether it is the grid of all the others that a job of ours put beside them."""
    return path.name == "grid.png" and (path.parent / "recipe.json").is_file()


def _parquet(root: Path, files: Sequence[Path], wanted: bool) -> Source:
    import pyarrow
    import pyarrow.parquet as pq

    try:
        tables = [pq.ParquetFile(f) for f in files]
    except (pyarrow.ArrowException, OSError) as error:
        raise Refused(f"{root} cannot be read as Parquet: {first_line(error)}") from None
    columns = tables[0].schema_arrow.names
    image = next((c for c in IMAGE_COLUMNS if c in columns), None)
    label = next((c for c in LABEL_COLUMNS if c in columns), None)
    if image is None:
        raise Refused(f"{root} has no column 'image' with bytes; its columns are {', '.join(columns)}")
    for file, table in zip(files, tables, strict=True):
        check_images(file, image, table.schema_arrow)
    count = sum(t.metadata.num_rows for t in tables)
    if not count:
        raise Refused(f"{root} has no rows")
    names = _unless(wanted, lambda: class_names(files, tables, label)) if label else None
    column = label if names else None
    stats = [(f.name, *_stamp(f)) for f in files]

    def read() -> Iterator[Raw]:
        row = 0
        try:
            for table in tables:
                for batch in table.iter_batches(256, columns=[image] + ([column] if column else [])):
                    labels = batch.column(column).to_pylist() if column else [None] * len(batch)
                    for cell, k in zip(batch.column(image).to_pylist(), labels, strict=True):
                        yield f"row {row}", cell["bytes"] if isinstance(cell, dict) else cell, k
                        row += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise Refused(f"{root} is damaged after row {row} of {count}: {first_line(error)}") from None

    return Source(str(root), count, names, _digest("parquet", str(root.resolve()), stats), read)


def _unless(wanted: bool, names: Callable[[], tuple[str, ...]]) -> tuple[str, ...] | None:
    """The names of the classes; where they are not wanted, no labels in place of labels that are refused."""
    try:
        return names()
    except ValueError:
        if wanted:
            raise
        return None


def _digits() -> Source:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise Refused("DATA 'digits' needs scikit-learn: pip install 'ddim[digits]'") from None

    def read() -> Iterator[Raw]:
        bunch = load_digits()
        pixels = np.round(bunch.images * (255 / 16)).astype(np.uint8)
        for i, (p, k) in enumerate(zip(pixels, bunch.target, strict=True)):
            yield f"digit {i}", Image.fromarray(p), int(k)

    return Source("digits", 1797, tuple("0123456789"), _digest("digits", "", []), read)


def _hub(name: str, wanted: bool) -> Source:
    import datasets
    import pyarrow

    # Before version 4 it would ask on the terminal whether to run a data set's own code.
    datasets.config.HF_DATASETS_TRUST_REMOTE_CODE = False
    try:
        table = datasets.load_dataset(name, split="train")
    except (OSError, ValueError, RuntimeError) as error:
        raise Refused(
            f"there is no folder {name}, and as a hub id it cannot be loaded (network? name?): {first_line(error)}"
        ) from None
    image = next((c for c in IMAGE_COLUMNS if c in table.column_names), None)
    label = next((c for c in LABEL_COLUMNS if c in table.column_names), None)
    if image is None:
        raise Refused(f"{name} has no column 'image'; its columns are {', '.join(table.column_names)}")

    def found_names() -> tuple[str, ...]:
        check_labels(name, str(label), table.features.arrow_schema)
        return numbered(table.unique(label), name, tuple(getattr(table.features[label], "names", ()) or ()))

    names = _unless(wanted, found_names) if label else None
    try:
        raw = table.select_columns([image] + ([label] if names else []))
        raw = raw.cast_column(image, datasets.Image(decode=False))
    except (pyarrow.ArrowException, ValueError, TypeError) as error:
        raise Refused(f"column {image!r} of {name} holds no images: {first_line(error)}") from None

    def read() -> Iterator[Raw]:
        for i, row in enumerate(raw):
            cell = row[image] or {}
            file = cell.get("bytes") or (Path(cell["path"]) if cell.get("path") else None)
            yield f"row {i}", file, row[label] if names else None

    return Source(name, len(table), names, _digest("hub", name, [str(table._fingerprint)]), read)


def _stamp(file: Path) -> tuple[int, int, int]:
    """What changes with a file's content. Size and time can be kept while it does (cp -p, two names swapped); the time
    of the last change of the entry itself cannot."""
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _digest(kind: str, where: str, parts: list[Any]) -> str:
    return hashlib.blake2b(json.dumps([kind, where, parts]).encode(), digest_size=16).hexdigest()
