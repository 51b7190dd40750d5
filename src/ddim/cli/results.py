"""Results of long work: their place is looked at first, and where it fails them at the end they are kept elsewhere."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ddim.files import whole_folder
from ddim.refused import Refused


def in_folder(out: Path, write: Callable[[Path], object]) -> None:
    """A new folder that `write` fills, whole or not there.

    Raises:
        OSError, Refused: the disk is full, or somebody was faster; says where the results are instead.
    """

    def whole() -> None:
        with whole_folder(out, new=True) as place:
            write(place)

    _kept(whole, write)


def in_file(out: Path, write: Callable[[Path], object]) -> None:
    """A new file that `write` makes at the path it is given, whole or not there.

    Raises:
        OSError, Refused: as `in_folder`.
    """
    _kept(lambda: write(out), lambda place: write(place / out.name))


def _kept(write: Callable[[], object], elsewhere: Callable[[Path], object]) -> None:
    """Computing took long: a place that cannot take what came of it is no reason to throw it away."""
    try:
        write()
    except (OSError, Refused) as error:
        place = Path(tempfile.mkdtemp(prefix="ddim-"))
        try:
            elsewhere(place)
        except (OSError, Refused):  # no room there either
            shutil.rmtree(place, ignore_errors=True)
            raise error from None
        raise type(error)(f"{error}; what was made is in {place}") from None
