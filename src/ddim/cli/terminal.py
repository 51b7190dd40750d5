"""What is printed holds no control characters, and no word without end: names come from files, and files from anybody.

One place for all of it: while a command runs, both streams pass through here, and so does every refusal.
"""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

LONGEST_WORD, LONGEST_LINE = 400, 2000  # characters; of a refusal, which is one line
BAR = re.compile(r"\r|(\x1b\[A)+")  # what a bar begins with: back to the beginning of its line, or up to it


def escaped(text: str) -> str:
    """Lines as they are; in them, whatever a terminal would not show as itself (control characters, marks that turn the
    direction of writing, halves of a character) as Python spells it."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == "\n" or c.isprintable() else _spelled(c) for c in text)


def bounded(text: str) -> str:
    """Words of a length that people read: of a longer one its beginning and its end."""
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda found: _cut(found[0], LONGEST_WORD), text)


def one_line(text: str) -> str:
    """A refusal: one line, of which the cause at its beginning and the remedy at its end are always there."""
    return _cut(bounded(escaped(" ".join(text.split()))), LONGEST_LINE)


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    first = most * 2 // 3
    last = most - first
    return f"{text[:first]}..({len(text) - most} characters)..{text[-last:]}"


def _spelled(c: str) -> str:
    byte = ord(c) - 0xDC00  # a byte of a file name that is no UTF-8
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else c.encode("unicode_escape", "backslashreplace").decode()


class Plain:
    """A text stream that shows what it is given, as `escaped` and `bounded`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        bar = BAR.match(text) if self._stream.isatty() else None  # it is drawn where somebody watches, and only there
        start = bar[0] if bar else ""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        shown = bounded(escaped(text.removeprefix(start))).encode(encoding, "backslashreplace").decode(encoding)
        self._stream.write(start + shown)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Both streams of this process, as `Plain`."""
    out: Any = Plain(sys.stdout)
    err: Any = Plain(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield


@contextlib.contextmanager
def notes() -> Iterator[None]:
    """What the library warns of in its own categories is said in a line; other packages' warnings as ever."""
    show = warnings.showwarning

    def said(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__module__.startswith("ddim."):
            print(f"note: {message}", file=sys.stderr)
        else:
            show(message, category, *where, **more)

    warnings.showwarning = said
    try:
        yield
    finally:
        warnings.showwarning = show
