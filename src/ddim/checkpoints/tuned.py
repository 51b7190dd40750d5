"""What was tuned for one checkpoint, kept beside its weights: times, guidance, the hand-over to it from another one.

`tuned.json` in a model folder maps a name to what was found, and to the model it is for:
{"ddim/10": {"tau": [1000, 871, ..., 0], "model": "9f2c..."},
 "guidance/ddim/10": {"guidance": 1.6, "interval": [200, 800], "model": "9f2c..."},
 "guidance/ddim/10/GUIDE": the same by another model as the guide, "early/ddim/10/EARLY": {"at": 600, "model": ..}}.
Spacing "tuned", guidance "tuned", and an early network without its hand-over read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddim.files import alone, read_json, sweep, write_json
from ddim.refused import Refused
from ddim.stored import is_number

FILE = "tuned.json"


def load_tuned(folder: Path | None, solver: str, steps: int | None, model: str) -> list[Any]:
    """The times `ddim tune` saved in a model folder for this solver, number of steps and model (`Checkpoint.identity`).

    Raises:
        Refused: none were saved, or for other weights; names what there is and the command that makes them.
    """
    remedy = f"run ddim tune MODEL DATA with `solver` {solver} and `steps` {steps}"
    entry = _entry(folder, f"{solver}/{steps}", f"times for solver {solver} and {steps} steps", model, remedy)
    return list(entry["tau"])


def load_tuned_guidance(
    folder: Path | None, solver: str, steps: int, model: str, guide: str | None
) -> tuple[float, tuple[Any, Any] | None]:
    """The weight and the interval saved for this solver, number of steps, model and guide; None is the null label.

    Raises:
        Refused: as `load_tuned`.
    """
    by = "`guidance` auto" + ("" if guide is None else " and the same `guide`")
    remedy = f"run ddim tune MODEL DATA with {by}, `solver` {solver} and `steps` {steps}"
    wanted = f"guidance{'' if guide is None else ' by this guide'} for solver {solver} and {steps} steps"
    entry = _entry(folder, guidance_key(solver, steps, guide), wanted, model, remedy)
    interval = entry["interval"]
    return float(entry["guidance"]), None if interval is None else (interval[0], interval[1])


def load_tuned_handover(folder: Path | None, solver: str, steps: int, model: str, early: str) -> Any:
    """The hand-over from this early network saved for this solver, number of steps and model.

    Raises:
        Refused: as `load_tuned`.
    """
    remedy = f"give `at`, or run ddim tune MODEL DATA with the same `early`, `solver` {solver} and `steps` {steps}"
    wanted = f"hand-over from this early network for solver {solver} and {steps} steps"
    return _entry(folder, handover_key(solver, steps, early), wanted, model, remedy)["at"]


def guidance_key(solver: str, steps: int, guide: str | None) -> str:
    """The name under which guidance is kept."""
    return f"guidance/{solver}/{steps}" + ("" if guide is None else f"/{guide}")


def handover_key(solver: str, steps: int, early: str) -> str:
    """The name under which a hand-over is kept."""
    return f"early/{solver}/{steps}/{early}"


def save_tuned(folder: Path, solver: str, times: Sequence[Any], model: str) -> Path:
    """Add times to a model folder's `tuned.json`, whole or not at all."""
    return keep_tuned(
        folder, f"{solver}/{len(times) - 1}", {"tau": [t if isinstance(t, float) else int(t) for t in times]}, model
    )


def keep_tuned(folder: Path, key: str, found: dict[str, Any], model: str) -> Path:
    """Add what was found under a name to a model folder's `tuned.json`, whole or not at all."""
    path = Path(folder) / FILE
    with alone(path.parent):  # else, of two that add at once, one is lost
        sweep(path.parent)
        table = _table(path) if path.exists() else {}
        table[key] = {**found, "model": model}
        return write_json(path, dict(sorted(table.items())))


def _entry(folder: Path | None, key: str, wanted: str, model: str, remedy: str) -> dict[str, Any]:
    path = None if folder is None else Path(folder) / FILE
    table = _table(path) if path is not None and path.exists() else {}
    if key not in table:
        there = f"tuned are {', '.join(sorted(table))}" if table else "nothing is tuned yet"
        raise Refused(f"this model has no tuned {wanted} ({there}): {remedy}")
    entry: dict[str, Any] = table[key]
    if entry["model"] != model:
        raise Refused(f"{path} was tuned for other weights, or for these read otherwise: {remedy}")
    return entry


def _table(path: Path) -> dict[str, Any]:
    table = read_json(path)
    for key, entry in table.items():
        if not isinstance(entry, dict) or "model" not in entry or not _whole(key.partition("/")[0], entry):
            raise Refused(f"{path} is not as `ddim tune` writes it; remove it and tune again")
    return table


def _whole(kind: str, entry: dict[str, Any]) -> bool:
    """Whether an entry holds what its kind has: a hand-over, guidance, or else times."""
    if kind == "early":
        return is_number(entry.get("at"))
    if kind == "guidance":
        interval = entry.get("interval", ())
        return is_number(entry.get("guidance")) and (interval is None or _times(interval, 2))
    return _times(entry.get("tau"))


def _times(value: Any, count: int | None = None) -> bool:
    return isinstance(value, list) and all(is_number(t) for t in value) and count in (None, len(value))
