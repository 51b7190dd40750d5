"""What several commands share: a progress bar that is silent when nobody watches, tables, paths."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from ddim.refused import Refused


@contextmanager
def progress(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A bar with time left on stderr; the function it gives takes how much is done so far."""
    with tqdm(total=total, unit=f" {unit}", file=sys.stderr, disable=not sys.stderr.isatty(), delay=2) as bar:

        def advance(done: int) -> None:
            bar.update(done - bar.n)

        yield advance


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned to the right under their heads."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in [head, *rows]]
    return "\n".join(lines)


def new_folder(out: Path) -> Path:
    """Make a folder for results.

    Raises:
        Refused: it exists and is not empty (nothing is ever overwritten).
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused(f"{out} exists and is not empty; choose a new folder for --out")
    out.mkdir(parents=True, exist_ok=True)
    return out
