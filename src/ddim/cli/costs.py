"""What a long command will cost: network calls, told before it begins; time, told after its first batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ddim.cli import show


def of_rows(rows: int, whole: int, left: int) -> str:
    """So many rows, all their network calls, and those that are not made yet."""
    told = f"{rows} row{'s' * (rows != 1)}: {whole:,} network calls, each counted once an image"
    return told if left == whole else f"{told}; {whole - left:,} of them are made already"


@contextmanager
def progress(calls: int, first: int) -> Iterator[Callable[[int, str], None]]:
    """A bar of network calls; when more than the `first` are made, it says on stderr how long all of them will take.

    The clock starts at the first news: what a network does once (warming up, choosing its kernels) is not multiplied.
    """
    began: tuple[float, int] | None = None
    told = False
    with show.progress(calls, "calls") as bar:

        def advance(done: int, name: str) -> None:
            nonlocal began, told
            bar(done, name)
            began = began or (time.monotonic(), done)
            if not told and done > first:
                told = True
                each = (time.monotonic() - began[0]) / max(1, done - began[1])
                rest = show.duration(each * (calls - done))
                show.above(f"about {rest} to go: {1000 * each:.2g} ms a network call and image")

        yield advance
