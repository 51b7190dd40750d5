"""How many threads compute: fewer where others use the cores."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

TRIES = 5


@contextlib.contextmanager
def unhindered(call: Callable[[], object]) -> Iterator[None]:
    """One thread where a call is faster so: several that share the cores with other jobs fall to a tenth."""
    import torch

    def taken(threads: int) -> float:
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for _ in range(TRIES):
            call()
        return time.perf_counter() - start

    many = torch.get_num_threads()
    if many > 1 and taken(1) < taken(many):
        torch.set_num_threads(1)
        print(
            f"one thread is faster here than {many}: other jobs use the cores, or the network is small", file=sys.stderr
        )
    try:
        yield
    finally:
        torch.set_num_threads(many)
