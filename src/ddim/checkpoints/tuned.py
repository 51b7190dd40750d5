"""Times tuned for one checkpoint, kept beside its weights.

`tuned.json` in a model folder maps "solver/steps" to the times, falling, with the final 0, and to the model they
are for: {"ddim/10": {"tau": [1000, 871, ..., 0], "model": "9f2c..."}, ...}. Spacing "tuned" reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddim.files import alone, read_json, write_json
from ddim.refused import Refused

FILE = "tuned.json"


def load_tuned(folder: Path | None, solver: str, steps: int | None, model: str) -> list[int]:
    """The times `ddim tune` saved in a model folder for this solver, number of steps and model (`Checkpoint.identity`).

    Raises:
        Refused: none were saved, or for other weights; names what there is and the command that makes them.
    """
    path = None if folder is None else Path(folder) / FILE
    table = _table(path) if path is not None and path.exists() else {}
    entry = table.get(f"{solver}/{steps}")
    remedy = f"run ddim tune MODEL DATA with `solver` {solver} and `steps` {steps}"
    if entry is None:
        there = f"tuned are {', '.join(sorted(table))}" if table else "nothing is tuned yet"
        raise Refused(f"this model has no tuned times for solver {solver} and {steps} steps ({there}): {remedy}")
    if entry["model"] != model:
        raise Refused(f"{path} was tuned for other weights, or for these read otherwise: {remedy}")
    return [int(t) for t in entry["tau"]]


def save_tuned(folder: Path, solver: str, times: Sequence[int], model: str) -> Path:
    """Add times to a model folder's `tuned.json`, whole or not at all."""
    path = Path(folder) / FILE
    with alone(path.parent):  # else, of two that add at once, one is lost
        table = _table(path) if path.exists() else {}
        table[f"{solver}/{len(times) - 1}"] = {"tau": [int(t) for t in times], "model": model}
        return write_json(path, dict(sorted(table.items())))


def _table(path: Path) -> dict[str, Any]:
    table = read_json(path)
    for entry in table.values():
        times = entry.get("tau") if isinstance(entry, dict) else None
        if not isinstance(times, list) or not all(isinstance(t, int) for t in times) or "model" not in entry:
            raise Refused(f"{path} is not as `ddim tune` writes it; remove it and tune again")
    return table
