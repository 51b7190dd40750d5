"""What is typed, as values: lists of numbers, files and folders of images; or one line that says how it is written."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ddim
from ddim.refused import Refused

SPELLED = {"n": "count", "start": "from"}
"""Options whose flag is not their name: torchrun takes --n for the beginning of its own --nnodes and --no-python, and
`from` is a word of Python."""


MOST_SIDE = 8192  # pixels of a picture's side: in colour it then takes 200 MB


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
        raise Refused(f"{flag} takes {like}, got {reprlib.repr(text)}") from None


def reals(text: str, flag: str) -> list[float]:
    """ "0,0.5,1" as numbers.

    Raises:
        Refused: anything else.
    """
    try:
        found = [float(word) for word in words(text)]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise Refused(f'{flag} takes numbers like "0,0.5,1", got {reprlib.repr(text)}')
    return found


def noise(solver: str, eta: float, *, hat: bool, learned: bool) -> dict[str, Any]:
    """What `Model.sampler` is told of the noise that steps inject.

    Raises:
        Refused: several noises at once.
    """
    if not (hat or learned):
        return {"solver": solver, "eta": eta}
    if hat and learned:
        raise Refused("--sigma-hat and --sigma-learned are two noises: give one of them")
    if solver != "ddim" or eta not in ((0.0, 1.0) if learned else (0.0,)):
        flag = "--sigma-learned is DDPM's noise (eta 1)" if learned else "--sigma-hat is DDPM's noise"
        raise Refused(f"{flag} in the ddim solver: give it without --eta and --solver")
    return {"solver": ddim.DDIM(sigma="learned" if learned else "hat")}


def times(text: str, *, whole: bool) -> list[int] | list[float]:
    """ "981,640,1,0" as --tau takes it: whole numbers of a schedule, others of a continuous process.

    Raises:
        Refused: anything else.
    """
    return numbers(text, "--tau", 'times like "981,640,1,0"') if whole else reals(text, "--tau")


def spacing_of(name: str, model: ddim.Model) -> str:
    """The spacing of that name; auto is edm on the process of that name, else uniform."""
    return ddim.process.usual_spacing(model.process) if name == "auto" else name


def words(text: str) -> list[str]:
    """ "a,b" as words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def size_of(text: str | None) -> tuple[int, int] | None:
    """ "32" or "48x64" as (H, W).

    Raises:
        Refused: anything else.
    """
    if text is None:
        return None
    high, _, wide = text.lower().partition("x")
    if not high.isdecimal() or (wide and not wide.isdecimal()) or text.lower().endswith("x"):
        raise Refused(f'--size is written like "32" or "48x64" (height x width); cannot read {reprlib.repr(text)}')
    if max(len(high), len(wide)) > 6 or not 1 <= min(size := (int(high), int(wide or high))) <= max(size) <= MOST_SIDE:
        raise Refused(f"--size must be at least 1x1, at most {MOST_SIDE}x{MOST_SIDE}, got {reprlib.repr(text)}")
    return size


def typed_size(size: tuple[int, int]) -> str:
    """(H, W) as --size takes it: the way back from `size_of`."""
    return f"{size[0]}" if size[0] == size[1] else f"{size[0]}x{size[1]}"


def classes(text: str, names: Sequence[str] | None, flag: str, like: str) -> list[int]:
    """ "cat,dog,3" as class numbers: a number that is one of the classes', or a name.

    Raises:
        Refused: neither; it lists the names there are.
    """
    known = list(names or ())
    if not known:
        return numbers(text, flag, like)
    found = []
    for word in words(text):
        alike = [k for k, name in enumerate(known) if name.casefold() == word.casefold()]
        number = int(word) if word.removeprefix("-").isdecimal() else None
        if number is not None and (number in range(len(known)) or not alike):
            found.append(number)  # one that is no class is refused by the model
        elif len(alike) == 1 or word in known:
            found.append(known.index(word) if word in known else alike[0])
        else:
            raise Refused(f"{flag} takes {like}, by number or by name; {word!r} is none of {', '.join(known)}")
    return found


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those in the folders named, sorted within each folder; no pipes, no links to nothing.

    Raises:
        Refused: nothing there.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            suffixes = ddim.pixels.SUFFIXES
            found += sorted(
                p for p in path.iterdir() if p.suffix.lower() in suffixes and p.name != "grid.png" and p.is_file()
            )
        elif path.exists():
            found.append(path)
        else:
            raise Refused(f"there is no image {path}")
    if not found:
        raise Refused(f"no images in {', '.join(map(str, paths)) or 'nothing'}; name image files or folders of them")
    return found


def time_of(t: float) -> float:
    """As a process has it: times of a schedule are whole numbers, and a whole one is a time of any."""
    return int(t) if t.is_integer() else t
