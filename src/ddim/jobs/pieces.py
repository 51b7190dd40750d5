"""A result that processes make in pieces: each a file in a folder beside the result, made once, joined by the last one.

One process alone keeps its pieces in memory, unless others left a folder of them: then it goes on there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from ddim.files import Crew
from ddim.jobs.cluster import Over
from ddim.jobs.job import ALONE, RECIPE, Share, crew_of, open_job

V = TypeVar("V")


class Pieces(Generic[V]):
    """The pieces of a result, one a name.

    Args:
        result: the file that will be; the pieces lie in `result`.parts until then.
        recipe: gives everything that decides them, as JSON; asked only where pieces are shared.
        save, load: one piece to a file and back.
    """

    def __init__(
        self,
        result: Path,
        recipe: Callable[[], Mapping[str, Any]],
        save: Callable[[V, Path], object],
        load: Callable[[Path], V],
    ) -> None:
        self.place = result.with_name(f"{result.name}.parts")
        self.crew: Crew | None = None
        self._recipe, self._save, self._load, self._kept = recipe, save, load, dict[str, V]()

    def made(
        self, names: Sequence[str], make: Callable[[Any], V], share: Share = ALONE, *,
        over: Over = map, item: Callable[[str], Any] = lambda name: name,
    ) -> Iterator[str]:  # fmt: skip
        """Make what is missing of this process's share, and of those of the dead; yields each name when it is there.

        Args:
            make: a name, or what `item` makes of it here -> that piece.
            over: how it is called, like `map`; see `on_ray`.

        Raises:
            Refused: the folder holds pieces of another recipe, or something else.
        """
        if share == ALONE and not self.place.exists():
            for name, piece in zip(names, over(make, map(item, names)), strict=True):
                self._kept[name] = piece
                yield name
            return
        recipe = {**self._recipe(), "pieces": list(names)}
        while self.crew is None:  # the last one may take the folder away at this moment
            with contextlib.suppress(FileNotFoundError):
                crew = crew_of(open_job(self.place, recipe))
                self.crew = crew if (self.place / RECIPE).exists() else None
        for turn in share.turns(names, self.crew):
            missing = dict.fromkeys(name for name in turn if not self._path(name).exists())
            yield from (name for name in turn if name not in missing)
            for name, piece in zip(missing, over(make, map(item, missing)), strict=True):
                self._save(piece, self._path(name))
                yield name
        if share == ALONE:
            self.crew.last()

    def joined(self, names: Sequence[str]) -> list[V] | None:
        """All pieces in the order of the names; None where others are at work, of whom the last one joins them.

        Raises:
            Refused: a piece is damaged.
        """
        if self.crew is None:
            return [self._kept[name] for name in names]
        if self.crew.others or not all(self._path(name).exists() for name in names):
            return None
        return [self._load(self._path(name)) for name in names]

    def clear(self) -> None:
        """The result stands: its pieces go, with the last one at work."""
        if self.crew is not None and self.crew.last(closed=True) is not False:
            shutil.rmtree(self.place, ignore_errors=True)
            self.crew.leave()

    def _path(self, name: str) -> Path:
        return self.place / name
