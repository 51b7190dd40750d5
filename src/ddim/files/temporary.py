"""Names that files and folders have until they are whole, and what killed writers left under them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
from pathlib import Path

STALE = 24 * 3600.0  # seconds without a change after which a writer on another machine is taken for dead


def _machine() -> str:
    """Where a process number means a process: the machine, or the container on it."""
    with contextlib.suppress(OSError):
        return f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


HOST = hashlib.blake2b(_machine().encode(), digest_size=4).hexdigest()  # in temporary names
OWN = r"(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.part"
TEMPORARY = re.compile(rf"\..+\.{OWN}", re.DOTALL)


def temporary_name(name: str) -> str:
    """Hidden, this writer's own, no longer than a name may be."""
    short = name.encode(errors="surrogateescape")[:60].decode(errors="ignore") or "_"
    return f".{short}.{HOST}-{os.getpid()}-{secrets.token_hex(4)}.part"


def is_temporary(name: str, of: str = "") -> bool:
    """Whether a name is one that a file (of that name) has, or in version 0.1 had, until it is whole."""
    return re.fullmatch(rf"\.{re.escape(of) or '.+'}\.({OWN}|\d+|part)", name) is not None


def sweep(folder: Path, also: re.Pattern[str] | None = None) -> None:
    """Remove what killed writers left in a folder under temporary names, and under older ones with these groups.

    Killed: the process, on this machine, is gone; or, elsewhere, nothing has changed for a day by the clock of that
    disk: ours may go wrong.
    """
    now: float | None = None
    for path in folder.glob(".*"):
        named = TEMPORARY.fullmatch(path.name) or (also.fullmatch(path.name) if also is not None else None)
        if named is None:
            continue
        if named["host"] == HOST:
            dead = _gone(int(named["pid"]))
        else:
            now = _now(folder) if now is None else now
            dead = now - _changed(path, now) > STALE
        if dead:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _gone(pid: int) -> bool:
    try:
        if os.name == "posix":  # elsewhere the question itself would end the process
            os.kill(pid, 0)
    except (OSError, OverflowError) as error:
        return isinstance(error, ProcessLookupError)
    return False


def _now(folder: Path) -> float:
    """The time by the clock that dates the files of a folder; the beginning of time where nothing can be written."""
    probe = folder / temporary_name("clock")
    try:
        probe.touch(exist_ok=False)
        return float(probe.stat().st_mtime)
    except OSError:
        return 0.0
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def _changed(path: Path, now: float) -> float:
    """When a file, or a folder or what is in it, was last written; now, if it is vanishing."""
    try:
        return max(float(p.stat().st_mtime) for p in (path, *(path.iterdir() if path.is_dir() else ())))
    except OSError:
        return now
