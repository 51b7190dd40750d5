"""What every job shares: a folder, the recipe by which it is taken up again, and the share of one process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ddim.files import Crew, alone, is_temporary, read_json, sweep, write_text
from ddim.refused import Refused

RECIPE = "recipe.json"
T = TypeVar("T")


class Share(NamedTuple):
    """Process `rank` of `world`, which share a job by taking every world-th of its items."""

    rank: int = 0
    world: int = 1

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """This process's items."""
        return items[self.rank :: self.world]

    def turns(self, items: Sequence[T], crew: Crew | None = None) -> Iterator[Sequence[T]]:
        """What this process sees to: its items, and then, where nobody else is at work, all: some died, or never came.

        Who looks at an item makes it only if it is not there.

        Args:
            crew: the processes at work on the job; without it everybody is taken to live.
        """
        yield self.of(items)
        if self.world > 1 and crew is not None and crew.last():
            yield items


ALONE = Share()


def share_of(environ: Mapping[str, str]) -> Share:
    """Which process this is and how many share the job, as torchrun tells them; (0, 1) if alone.

    Raises:
        Refused: one of RANK and WORLD_SIZE without the other, no whole numbers, or not 0 <= RANK < WORLD_SIZE.
    """
    given = {name: environ[name] for name in ("RANK", "WORLD_SIZE") if name in environ}
    if not given:
        return ALONE
    for name, value in given.items():
        if not (value.isascii() and value.isdecimal()):
            raise Refused(f"{name} must be a whole number >= 0, got {value!r}; use torchrun, or unset {name}")
    if len(given) == 1:
        ((name, value),) = given.items()
        other = "WORLD_SIZE" if name == "RANK" else "RANK"
        raise Refused(f"{name} is {value!r} but {other} is not set; set both, as torchrun does, or neither")
    rank, world = int(given["RANK"]), int(given["WORLD_SIZE"])
    if world < 1:
        raise Refused(f"WORLD_SIZE must be at least 1, got {world}; it is the number of processes")
    if rank >= world:
        raise Refused(f"RANK must be below WORLD_SIZE, got RANK = {rank} of {world}; processes count from 0")
    return Share(rank, world)


def crew_of(out: Path) -> Crew:
    """This process, from now on, among those that are at work on the job in a folder."""
    return Crew(out / RECIPE)


def open_job(out: Path, recipe: Mapping[str, Any]) -> Path:
    """Begin a job in a new or empty folder, or take up the one that is there if its recipe is the same.

    Raises:
        Refused: the folder holds something else, or a job with another recipe (the difference is named).
    """
    wanted, path = plain(recipe), out / RECIPE
    if not path.exists() and not occupied(out):
        out.mkdir(parents=True, exist_ok=True)
        with alone(out):  # another job may begin here at this moment: one of the two puts its recipe there
            if not path.exists() and not occupied(out):
                sweep(out)
                write_text(path, json.dumps(wanted, indent=1), new=True)
                return out
    if not path.exists():
        raise Refused(f"{out} exists and is no sampling job; choose a new or empty folder for `out`")
    found = read_json(path)
    changed = sorted(differences(found, wanted))
    if changed:
        k = changed[0]
        raise Refused(
            f"{out} holds images of another recipe: its {k} is {_short(found.get(k))}, "
            f"yours {_short(wanted.get(k))}; choose a new `out`"
        )
    sweep(out)
    return out


def occupied(out: Path) -> bool:
    """Whether something is there. A recipe half written, by a process at work or killed, is nothing yet."""
    if not out.is_dir():
        return out.exists()
    return any(not is_temporary(p.name, RECIPE) for p in out.iterdir())


def differences(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The names under which two recipes differ, in the order of the first; one that is absent counts as None."""
    return [name for name in dict.fromkeys([*stored, *wanted]) if stored.get(name) != wanted.get(name)]


def plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as its file would give it back: tuples are lists, keys are words."""
    out: dict[str, Any] = json.loads(json.dumps(dict(recipe)))
    return out


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
