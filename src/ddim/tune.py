"""Times chosen for one checkpoint, kept beside its weights.

`tuned.json` in the model folder maps "solver/steps" to the times, falling, with the final 0:
{"ddim/10": [1000, 871, ..., 0], "dpm++2m/10": [...]}. `--spacing tuned` reads it.
"""

from __future__ import annotations

import json
from pathlib import Path

FILE = "tuned.json"


def load_tuned(folder: Path | None, solver: str, steps: int | None) -> list[int]:
    """The times `ddim tune` saved in a model folder for this solver and number of steps.

    Raises:
        ValueError: none were saved; names what there is and the command that makes them.
    """
    path = None if folder is None else Path(folder) / FILE
    table = json.loads(path.read_text()) if path is not None and path.exists() else {}
    times = table.get(f"{solver}/{steps}")
    if times is None:
        there = f"tuned are {', '.join(sorted(table))}" if table else "nothing is tuned yet"
        raise ValueError(
            f"this model has no tuned times for solver {solver} and {steps} steps ({there}): "
            f"run ddim tune MODEL DATA --solver {solver} --steps {steps}"
        )
    return [int(t) for t in times]
