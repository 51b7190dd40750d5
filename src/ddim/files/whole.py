"""A file or a folder that appears whole, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ddim.files.holds import alone
from ddim.files.temporary import is_temporary, sweep, temporary_name
from ddim.refused import Refused

NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.ENOSYS)  # of a file system that cannot
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # of a disk that takes no more


@contextmanager
def whole_file(path: str | Path, *, new: bool = False) -> Iterator[Path]:
    """A temporary path to write to; afterwards it is synced and becomes `path`, which is replaced if it is there.

    Args:
        new: nothing is replaced, whoever came first; the folder is made.

    Raises:
        OSError: no room, or the folder cannot be written to; nothing is left behind, and an old file as it was.
        Refused: `new`, and there is something by now.
    """
    partial = Path(path).with_name(temporary_name(Path(path).name))
    if new:
        partial.parent.mkdir(parents=True, exist_ok=True)
    with _disk_named(Path(path)):
        try:
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            ordinary = partial.stat().st_mode
            yield partial
            partial.chmod(ordinary)  # safetensors puts a file of its own there, which nobody else may read
            _sync(partial)
            if new:
                _place_new(partial, Path(path))
            else:
                partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _place_new(partial: Path, path: Path) -> None:
    """A second name for what is written: unlike a rename it fails where there is something."""
    taken = Refused(f"{path} exists and nothing is overwritten; choose another name")
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise taken from None
    except OSError:  # a file system without second names
        if os.path.lexists(path):
            raise taken from None
        partial.replace(path)


@contextmanager
def whole_folder(path: str | Path, *, last: tuple[str, ...] = (), new: bool = False) -> Iterator[Path]:
    """A temporary folder to fill; afterwards it becomes `path`, or, where that is a folder, its files move in there.

    Others of its files stay as they are. `last` names files that say "here is one": they move in last, in this order.

    Args:
        new: only a folder that is empty, or not there, is filled, whoever came first.

    Raises:
        Refused: path is a file; `new`, and something is in it by now.
    """
    if Path(path).exists() and not Path(path).is_dir():
        raise Refused(f"{path} is a file where a folder is to be written")
    target = Path(path).resolve()  # a link's other end may be another file system, across which nothing is renamed
    target.parent.mkdir(parents=True, exist_ok=True)
    # In a folder that exists: it may be a mount point, or the only place its owner may write to.
    place = target if target.exists() else target.parent
    sweep(place)  # what a killed writer left here is as large as a model
    temporary = place / temporary_name(target.name)
    with _disk_named(Path(path)):
        try:
            temporary.mkdir()
            yield temporary
            _settle(temporary, target, last, Path(path) if new else None)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _settle(temporary: Path, target: Path, last: tuple[str, ...], new: Path | None) -> None:
    """`new` is what the user calls a folder that nobody else may have filled."""
    inside = sorted(temporary.rglob("*"))
    ordinary = temporary.stat().st_mode & 0o666  # of a file beside a folder that the umask let be so
    for path in [*inside, temporary]:
        if path.is_file():
            path.chmod(ordinary)
        _sync(path)
    names = [p.relative_to(temporary) for p in inside if p.is_file()]
    if new is not None:
        target.mkdir(exist_ok=True)
        with alone(target):
            if any(not is_temporary(p.name) for p in target.iterdir()):
                raise Refused(
                    f"{new} exists and is not empty, and nothing is overwritten; choose a new folder for `out`"
                )
            if not _renamed(temporary, target):
                _move(names, temporary, target, last)
    elif target.exists() or not _renamed(temporary, target):
        _move(names, temporary, target, last)


def _renamed(temporary: Path, target: Path) -> bool:
    """All at once, where that can be: nothing is there, or an empty folder in whose place it may be put."""
    if temporary.parent == target:
        return False
    try:
        temporary.rename(target)
    except OSError:
        if not target.is_dir():  # else another writer was first, or the folder is a disk of its own
            raise
        return False
    _sync(target.parent)
    return True


def _move(names: list[Path], temporary: Path, target: Path, last: tuple[str, ...]) -> None:
    ends = [Path(name) for name in last if Path(name) in names]
    for part in ([name for name in names if name not in ends], ends):
        for name in part:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).replace(target / name)
        for folder in {(target / name).parent for name in part}:
            _sync(folder)


@contextmanager
def _disk_named(path: Path) -> Iterator[None]:
    """A disk that takes no more, in whoever's words (torch and safetensors have their own), as an `OSError` of path."""
    try:
        yield
    except Exception as error:
        code = _full(error)
        if code is None or (isinstance(error, OSError) and error.errno is None):  # else it has words of its own
            raise
        raise OSError(code, os.strerror(code), str(path)) from error


def _full(error: BaseException | None) -> int | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return error.errno
        if f"(os error {errno.ENOSPC})" in str(error):  # Rust's spelling
            return errno.ENOSPC
        error = error.__context__
    return None


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
