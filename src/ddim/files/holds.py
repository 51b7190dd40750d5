"""A folder kept for one process, by a lock that ends with its owner."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ddim.refused import Refused


class Hold:
    """A folder kept for one process: it ends with `release`, or with the process, however that ends.

    Args:
        wait: until another one's hold ends, instead of being refused.

    Raises:
        Refused: another process holds the folder.
    """

    def __init__(self, folder: Path, *, wait: bool = False) -> None:
        self._handle: int | None = None
        try:
            import fcntl
        except ImportError:  # Windows has no such lock
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(handle)
            raise Refused(
                f"another process is at work in {folder}: wait for it, stop it, or choose another `out`"
            ) from None
        except OSError:  # a file system without locks
            os.close(handle)
            return
        self._handle = handle

    def release(self) -> None:
        """Let others in."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.release()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The moment in which a process looks who is in a folder and puts its own first file there: one at a time."""
    hold = Hold(folder, wait=True)
    try:
        yield
    finally:
        hold.release()
