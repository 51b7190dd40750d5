"""A folder kept for one process, and who is at work on one thing, by locks that end with their owners."""

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


class Crew:
    """The processes at work on one thing: each counts until it leaves, or ends, however that ends.

    Args:
        path: a file or a folder that stays while they work, and that nobody holds.
    """

    def __init__(self, path: Path) -> None:
        self._handle: int | None = None
        self.others: bool | None = None  # as `last` found when it was asked last
        try:
            import fcntl
        except ImportError:
            return
        handle = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH)
        except OSError:
            os.close(handle)
            return
        self._handle = handle

    def last(self, *, closed: bool = False) -> bool | None:
        """Whether nobody else is at work. Where somebody is, this process has left; None where nobody can tell.

        Of several that ask at once one hears that it is the last: asking gives the share of the lock away first.

        Args:
            closed: whoever comes now waits until the last one leaves.
        """
        if self._handle is None:
            return None
        import fcntl

        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.others = True
            self.leave()
            return False
        except OSError:  # over a network only what may be written is locked for one
            return None
        self.others = False
        if not closed:
            fcntl.flock(self._handle, fcntl.LOCK_SH)
        return True

    def leave(self) -> None:
        """This process is done."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.leave()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """The moment in which a process looks who is in a folder and puts its own first file there: one at a time."""
    hold = Hold(folder, wait=True)
    try:
        yield
    finally:
        hold.release()
