"""Room on the cache's disk: arrays that meet no full disk later, and what builds of version 0.1 were called."""

from __future__ import annotations

import errno
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

NO_PREALLOCATION = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)  # a file system that cannot; errors come later then
# Names under which version 0.1 built an entry.
BUILD = re.compile(r"\.[0-9a-f]{24}-(?:(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-)?[^-]+")


def _take_room(path: Path) -> None:
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in NO_PREALLOCATION:
                raise


def new_array(
    path: Path, shape: tuple[int, ...], dtype: npt.DTypeLike = np.uint8, of: str = "decoded images"
) -> npt.NDArray[Any]:
    """A new memory-mapped array whose room on disk is taken at once: later a full disk would be a SIGBUS.

    Raises:
        OSError: no room; says how much is needed and where.
    """
    try:
        array: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        _take_room(path)
    except OSError as error:
        raise OSError(
            f"{path.parent.parent} has no room for {math.prod(shape) * np.dtype(dtype).itemsize / 1e6:.1f} MB of {of} "
            f"({error.strerror}); free some, or set DDIM_CACHE to a folder on another disk"
        ) from None
    return array
