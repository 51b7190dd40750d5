"""Places for results, looked at before any work is done: is it free, and does the way lead there?"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from ddim.files.temporary import sweep, temporary_name
from ddim.refused import Refused


def free_file(path: str | Path) -> Path:
    """A path where a new file can be written; nothing is made.

    Raises:
        Refused: there is something already, or the way there cannot be made.
    """
    path = Path(path)
    _sweep(path.parent)
    if os.path.lexists(path):
        raise Refused(f"{path} exists and nothing is overwritten; choose another name")
    reach(path)
    return path


def free_folder(path: str | Path) -> Path:
    """A path where a folder can be filled: there is none, or it is empty; nothing is made.

    Raises:
        Refused: it is not empty, or the way there cannot be made.
    """
    path = Path(path)
    _sweep(path.parent, path)
    if os.path.lexists(path) and (not path.is_dir() or any(path.iterdir())):
        raise Refused(f"{path} exists and is not empty, and nothing is overwritten; choose a new folder for `out`")
    reach(path, folder=True)
    return path


def _sweep(*folders: Path) -> None:
    for folder in folders:
        if folder.is_dir():
            sweep(folder)


def reach(path: Path, *, folder: bool = False) -> None:
    """The folders that lead to a file's path, or to files in a folder, and its name, tried under a hidden one.

    Raises:
        Refused: something on the way is a file, may not be written to, or has too long a name.
    """
    end = path.absolute() / "_" if folder else path.absolute()
    try:
        above = next(p for p in end.parents if os.path.lexists(p))
        if not above.is_dir():
            raise Refused(f"{path} cannot be written: {above} is no folder; choose another `out`")
        sweep(above)
        trial = above / temporary_name("way")
        try:
            trial.mkdir()
            made = trial / end.relative_to(above)
            made.parent.mkdir(parents=True, exist_ok=True)
            made.touch()
        finally:
            with contextlib.suppress(OSError):
                shutil.rmtree(trial)
    except OSError as error:
        why = error.strerror or error
        raise Refused(f"{path} cannot be written ({why}); choose another place for `out`") from None
