"""Room on the cache's disk: a place to build in, what dead builds left, and arrays that meet no full disk later."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import shutil
import socket
import tempfile
import time
from pathlib import Path

import numpy as np

from ddim.pixels import Pixels

STALE = 24 * 3600.0  # seconds without a change after which a build on another machine is taken for dead
NO_PREALLOCATION = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # a file system that cannot; errors come later then
BUILD = re.compile(r"\.[0-9a-f]{24}-(?:(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-)?[^-]+")


def building_place(cache: Path, key: str) -> Path:
    """A new hidden folder in the cache to build that entry in; folders of builds that are dead are removed.

    Dead: their process, on this machine, is gone; or nothing in them has changed for a day.
    """
    for folder in cache.glob(".*-*"):
        named = BUILD.fullmatch(folder.name)
        if named is None:
            continue
        gone = named["host"] == _host() and _gone(int(named["pid"]))
        if gone or time.time() - _changed(folder) > STALE:
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f".{key}-{_host()}-{os.getpid()}-", dir=cache))


def _host() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _gone(pid: int) -> bool:
    if os.name != "posix":  # elsewhere the question itself would end the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _changed(folder: Path) -> float:
    """When the folder or a file in it was last written; now, if it is vanishing."""
    try:
        return max(p.stat().st_mtime for p in (folder, *folder.iterdir()))
    except OSError:
        return time.time()


def _take_room(path: Path) -> None:
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in NO_PREALLOCATION:
                raise


def new_array(path: Path, shape: tuple[int, ...]) -> Pixels:
    """A new memory-mapped uint8 array whose room on disk is taken at once: later a full disk would be a SIGBUS.

    Raises:
        OSError: no room; says how much is needed and where.
    """
    try:
        array: Pixels = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        _take_room(path)
    except OSError as error:
        raise OSError(
            f"{path.parent.parent} has no room for {math.prod(shape) / 1e6:.1f} MB of decoded images "
            f"({error.strerror}); free some, or set DDIM_CACHE to a folder on another disk"
        ) from None
    return array
