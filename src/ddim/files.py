"""The one place that writes to disk: a file or a folder appears whole, under its own name, or not at all.

Everything is written under a hidden temporary name beside its place first, synced, and then renamed. The name holds
the process and a random part, so that no two writers share one; what fails leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ddim.refused import Refused

VERSION = "0.1.0"
"""Ours, as every file that is written says."""

MAX_JSON = 64 * 2**20


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; afterwards it is synced and becomes `path`, which is replaced if it is there.

    Raises:
        OSError: no room, or the folder cannot be written to; nothing is left behind.
    """
    path = Path(path)
    partial = _temporary(path)
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path, *, last: tuple[str, ...] = ()) -> Iterator[Path]:
    """A temporary folder to fill; afterwards it becomes `path`, or, where that is a folder, its files move in there.

    Args:
        path: the folder; others of its files stay as they are.
        last: names of files that say "here is one": they are moved in after all others.

    Raises:
        Refused: path is a file.
    """
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise Refused(f"{target} is a file where a folder is to be written")
    target = target.resolve()  # a link's other end may be another file system, across which nothing is renamed
    target.parent.mkdir(parents=True, exist_ok=True)
    # In a folder that exists: it may be a mount point, or the only place its owner may write to.
    place = target if target.exists() else target.parent
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=place))
    try:
        yield temporary
        _settle(temporary, target, last)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _settle(temporary: Path, target: Path, last: tuple[str, ...]) -> None:
    files = sorted(p for p in temporary.rglob("*") if p.is_file())
    for file in files:
        _sync(file)
    if not target.exists():
        temporary.chmod(0o755)
        temporary.rename(target)
    else:
        names = sorted((p.relative_to(temporary) for p in files), key=lambda p: str(p) in last)
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(target / name)
    _sync(target.parent)


def write_bytes(path: str | Path, data: bytes) -> Path:
    """The file with this content, whole or not there."""
    with whole_file(path) as partial:
        partial.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """The file with this text in UTF-8, whole or not there."""
    return write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any, *, allow_nan: bool = True) -> Path:
    """The value as JSON, whole or not there.

    Raises:
        Refused: the value holds what JSON cannot.
    """
    try:
        text = json.dumps(value, indent=1, allow_nan=allow_nan)
    except (TypeError, ValueError) as error:
        raise Refused(f"{Path(path).name} cannot be written: {error}") from None
    return write_text(path, text + "\n")


def new_file(path: str | Path) -> Path:
    """A path to write to, its folder made.

    Raises:
        Refused: there is something already.
    """
    path = Path(path)
    if path.exists():
        raise Refused(f"{path} exists and nothing is overwritten; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def new_folder(path: str | Path) -> Path:
    """A folder for results, made.

    Raises:
        Refused: it exists and is not empty.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise Refused(f"{path} exists and is not empty; choose a new folder for `out`")
    path.mkdir(parents=True, exist_ok=True)
    return path


def is_temporary(name: str, of: str | None = None) -> bool:
    """Whether a name is one that a file (of that name) has until it is whole; a killed writer leaves it behind."""
    return name.startswith(f".{of}." if of else ".") and name.endswith(".part")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Refused: not JSON, not an object, or too large to be a configuration.
    """
    if path.stat().st_size > MAX_JSON:
        raise Refused(f"{path} has {path.stat().st_size} bytes, too many for a configuration")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"{path} is not readable as JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused(f"{path} must hold a JSON object")
    return value


def sha256(path: Path) -> str:
    """The hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """A short hash of anything JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()


def plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping as JSON would give it back: tuples are lists, keys are words."""
    out: dict[str, Any] = json.loads(json.dumps(dict(value)))
    return out


def _temporary(path: Path) -> Path:
    """A hidden name beside `path`, this process's own; it keeps the suffix in sight of nobody who lists by suffix."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.{os.getpid()}-", suffix=".part", dir=path.parent)
    os.close(handle)
    Path(name).chmod(0o666 & ~_umask())
    return Path(name)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    """To the disk: a rename must not overtake the bytes it names. File systems that cannot are left as they are."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
