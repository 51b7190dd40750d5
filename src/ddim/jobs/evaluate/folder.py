"""The folder of an evaluation: whose it is, looked at before any work and once more when the work begins."""

from __future__ import annotations

from pathlib import Path

from ddim.files import Crew, Hold, alone, is_temporary, reach, sweep
from ddim.jobs.job import ALONE, Share
from ddim.refused import Refused

CELLS, GRIDS = "cells", "grids"


def refuse_no_report(out: Path) -> None:
    """Before anything is loaded.

    Raises:
        Refused: something else is there, or nothing can be.
    """
    holds = out.is_dir() and any(not is_temporary(p.name) for p in out.iterdir())
    if (out.exists() and not out.is_dir()) or (holds and not (out / CELLS).is_dir()):
        raise Refused(f"{out} exists and holds no evaluation; choose a new folder for `out`")
    reach(out / CELLS, folder=True)


def take_up(out: Path, share: Share = ALONE) -> tuple[Hold | None, Crew]:
    """The report's folder for this evaluation, begun or gone on with, and who is at work on it.

    Its first process keeps other evaluations out.

    Two evaluations at once would make the same rows twice, and the pages of two tables.

    Raises:
        Refused: another evaluation is at work there; something else is there by now.
    """
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        refuse_no_report(out)
        (out / CELLS).mkdir(exist_ok=True)
        (out / GRIDS).mkdir(exist_ok=True)
    hold = Hold(out / CELLS) if share.rank == 0 else None
    crew = Crew(out / GRIDS)
    for place in (out, out / CELLS, out / GRIDS):
        sweep(place)
    return hold, crew
