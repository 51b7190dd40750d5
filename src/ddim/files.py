"""The one place that writes to disk: a file or a folder appears whole, under its own name, or not at all.

Everything is written under a hidden temporary name beside its place, synced, and renamed; what fails leaves nothing.
A temporary name holds the machine, the process and a random part: no two writers share one, and `sweep` knows by it
what a killed writer left.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddim.refused import Refused

if TYPE_CHECKING:
    from torch import Tensor

VERSION = "0.1.0"  # ours, as every file that is written says
MAX_JSON = 64 * 2**20
STALE = 24 * 3600.0  # seconds without a change after which a writer on another machine is taken for dead
NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS)  # of a file system that cannot
HOST = hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()  # this machine in temporary names
OWN = r"(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.part"
TEMPORARY = re.compile(rf"\..+\.{OWN}")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path to write to; afterwards it is synced and becomes `path`, which is replaced if it is there.

    Raises:
        OSError: no room, or the folder cannot be written to; nothing is left behind, and an old file as it was.
    """
    partial = Path(path).with_name(_temporary_name(Path(path).name))
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield partial
        _sync(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path, *, last: tuple[str, ...] = ()) -> Iterator[Path]:
    """A temporary folder to fill; afterwards it becomes `path`, or, where that is a folder, its files move in there.

    Others of its files stay as they are. `last` names files that say "here is one": they move in last, in this order.

    Raises:
        Refused: path is a file.
    """
    if Path(path).exists() and not Path(path).is_dir():
        raise Refused(f"{path} is a file where a folder is to be written")
    target = Path(path).resolve()  # a link's other end may be another file system, across which nothing is renamed
    target.parent.mkdir(parents=True, exist_ok=True)
    # In a folder that exists: it may be a mount point, or the only place its owner may write to.
    place = target if target.exists() else target.parent
    temporary = place / _temporary_name(target.name)
    temporary.mkdir()
    try:
        yield temporary
        _settle(temporary, target, last)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _settle(temporary: Path, target: Path, last: tuple[str, ...]) -> None:
    inside = sorted(temporary.rglob("*"))
    for path in [*inside, temporary]:
        _sync(path)
    if not target.exists():
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():  # else another writer was first
                raise
        else:
            _sync(target.parent)
            return
    names = [p.relative_to(temporary) for p in inside if p.is_file()]
    ends = [Path(name) for name in last if Path(name) in names]
    for part in ([name for name in names if name not in ends], ends):
        for name in part:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(target / name)
        for folder in {(target / name).parent for name in part}:
            _sync(folder)


def write_text(path: str | Path, text: str) -> Path:
    """The file with this text in UTF-8, whole or not there."""
    with whole_file(path) as partial:
        partial.write_bytes(text.encode())
    return Path(path)


def write_json(path: str | Path, value: Any) -> Path:
    """The value as JSON, whole or not there.

    Raises:
        Refused: the value holds what JSON cannot, NaN too.
    """
    try:
        return write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
    except (TypeError, ValueError) as error:
        raise Refused(f"{Path(path).name} cannot be written: {error}") from None


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Path:
    """A safetensors file of these tensors, with words beside them; whole or not there."""
    from safetensors.torch import save_file

    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with whole_file(path) as partial:
        save_file(plain, partial, metadata=dict(metadata))
    return Path(path)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and the words beside them.

    Raises:
        Refused: there is no such file, or it is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise Refused(f"there is no file {path}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is not a mapping
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        raise Refused(f"{path} is not a safetensors file: {error}") from None


def new_file(path: str | Path) -> Path:
    """A path to write to, its folder made.

    Raises:
        Refused: there is something already.
    """
    if (path := Path(path)).exists():
        raise Refused(f"{path} exists and nothing is overwritten; choose another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def new_folder(path: str | Path) -> Path:
    """A folder for results, made.

    Raises:
        Refused: it exists and is not empty.
    """
    if (path := Path(path)).exists() and (not path.is_dir() or any(path.iterdir())):
        raise Refused(f"{path} exists and is not empty; choose a new folder for `out`")
    path.mkdir(parents=True, exist_ok=True)
    return path


def is_temporary(name: str, of: str = "") -> bool:
    """Whether a name is one that a file (of that name) has, or in version 0.1 had, until it is whole."""
    return re.fullmatch(rf"\.{re.escape(of) or '.+'}\.({OWN}|\d+|part)", name) is not None


def sweep(folder: Path, also: re.Pattern[str] | None = None) -> None:
    """Remove what killed writers left in a folder under temporary names, and under older ones with these groups.

    Killed: the process, on this machine, is gone; or nothing has changed for a day.
    """
    for path in folder.glob(".*"):
        named = TEMPORARY.fullmatch(path.name) or (also.fullmatch(path.name) if also is not None else None)
        gone = named is not None and named["host"] == HOST and _gone(int(named["pid"]))
        if named is not None and (gone or time.time() - _changed(path) > STALE):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Refused: not JSON, not an object, or too large to be a configuration.
    """
    if (size := path.stat().st_size) > MAX_JSON:
        raise Refused(f"{path} has {size} bytes, too many for a configuration")
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


def _temporary_name(name: str) -> str:
    """Hidden, this writer's own, no longer than a name may be."""
    return f".{name[:60]}.{HOST}-{os.getpid()}-{secrets.token_hex(4)}.part"


def _gone(pid: int) -> bool:
    try:
        if os.name == "posix":  # elsewhere the question itself would end the process
            os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, ProcessLookupError)
    return False


def _changed(path: Path) -> float:
    """When a file, or a folder or what is in it, was last written; now, if it is vanishing."""
    try:
        return max(float(p.stat().st_mtime) for p in (path, *(path.iterdir() if path.is_dir() else ())))
    except OSError:
        return time.time()


def _sync(path: Path) -> None:
    """To the disk: a rename must not overtake the bytes it names. File systems that cannot are left as they are."""
    with suppress(PermissionError):  # a folder, on Windows
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:  # a disk found full only now is no success
            if error.errno not in NO_SYNC:
                raise
        finally:
            os.close(handle)
