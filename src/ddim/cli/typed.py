"""What is typed, as values: lists of numbers, files and folders of images; or one line that says how it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ddim
from ddim.refused import Refused

SPELLED = {"n": "count"}
"""Options whose flag is not their name: torchrun takes --n for the beginning of its own --nnodes and --no-python."""


def flag_of(option: str) -> str:
    """What people type for an option: --batch-size, --count."""
    return f"--{SPELLED.get(option, option).replace('_', '-')}"


def numbers(text: str, flag: str, like: str = 'whole numbers like "10,20,50"') -> list[int]:
    """ "10,20,50" as whole numbers.

    Raises:
        Refused: anything else.
    """
    try:
        return [int(word) for word in words(text)]
    except ValueError:
        raise Refused(f"{flag} takes {like}, got {text!r}") from None


def reals(text: str, flag: str) -> list[float]:
    """ "0,0.5,1" as numbers.

    Raises:
        Refused: anything else.
    """
    try:
        return [float(word) for word in words(text)]
    except ValueError:
        raise Refused(f'{flag} takes numbers like "0,0.5,1", got {text!r}') from None


def words(text: str) -> list[str]:
    """ "a,b" as words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those in the folders named, sorted within each folder.

    Raises:
        Refused: nothing there.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            suffixes = ddim.pixels.SUFFIXES
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.name != "grid.png")
        elif path.exists():
            found.append(path)
        else:
            raise Refused(f"there is no image {path}")
    if not found:
        raise Refused(f"no images in {', '.join(map(str, paths)) or 'nothing'}; name image files or folders of them")
    return found
