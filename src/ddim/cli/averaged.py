"""What `ddim ema` says of averages that were measured beside one another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddim.cli import show

if TYPE_CHECKING:
    from ddim.jobs import Row

OWN = "the run's own"


def table(name: str, rows: dict[str, Row], floor: Row) -> str:
    """The averages of a run by their lengths, each beside the nearest, and real images."""

    def line(key: str, r: Row) -> list[str]:
        numbers = (r.distance, r.distance_std, r.behind, r.behind_std, r.precision, r.recall, r.class_accuracy)
        return [key, *("" if v is None else f"{v:.{k}g}" for v, k in zip(numbers, (4, 2, 2, 2, 3, 3, 3), strict=True))]

    head = ["length", name, "+-", "behind best", "+-", "precision", "recall", "class acc."]
    return show.table(head, [line(k, r) for k, r in [*rows.items(), (floor.solver, floor)]])


def words(name: str, rows: dict[str, Row], best: str) -> str:
    """Which row is nearest, which length if that is none, and which this n does not tell apart from the nearest."""
    nearest = min(rows, key=lambda k: rows[k].distance)
    text = f"nearest to the real images: {_said(nearest)}, {name} {rows[nearest].distance:.4g}"
    if nearest != best:
        text += f"; of the lengths asked for, {best} with {rows[best].distance:.4g}"
    alike = [_said(k) for k, r in rows.items() if k != nearest and (r.behind or 0.0) <= 2.0 * (r.behind_std or 0.0)]
    return text + (f"; not told apart from it with --count {rows[best].n}: {', '.join(alike)}" if alike else "")


def _said(key: str) -> str:
    return f"{OWN} average" if key == OWN else f"length {key}"
