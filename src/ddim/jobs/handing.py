"""The hand-over from a small network to a large one, chosen by the images they make together and by what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ddim.jobs.evaluate import Cell, Row, above
from ddim.jobs.judging import Judge
from ddim.model import Sampler
from ddim.process import Time

SHARES = (0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the steps that the small network takes


@dataclass(frozen=True)
class HandOver:
    """One hand-over, by the seeds searched on and by unseen ones.

    Attributes:
        at: the small network serves t > at; None where it serves everything.
        early, late: network calls an image of either.
        cost: arithmetic relative to the large network alone; None where nobody can count it.
    """

    at: Time | None
    early: int
    late: int
    cost: float | None
    seen: Row
    unseen: Row | None = None


@dataclass(frozen=True)
class TunedHandOver:
    """The outcome: the cheapest within two standard errors of the large network alone, on seen and unseen seeds.

    Attributes:
        chosen: may be the large network alone: `at` = T.
        tried: all, the most of the large network first; the small one alone last.
    """

    chosen: HandOver
    tried: tuple[HandOver, ...]


def tune_handover(
    sampler: Callable[[Any], Sampler], alone: Sampler, cell: Cell, judge: Judge, operations: tuple[int, int] | None
) -> Iterator[str | TunedHandOver]:
    """Try a few hand-overs for this sampler; yields what was tried, and at last the result.

    Args:
        sampler: of a hand-over; at T it is the large network alone.
        alone: the small network's own.
        operations: of a call of the small and of the large network.
    """
    T = alone.denoise.process.T
    times = sampler(T).tau[:-1]
    places = dict.fromkeys(round(share * len(times)) for share in SHARES)
    tried: list[HandOver] = []
    for at in [T, *(times[k] for k in places if 0 < k < len(times)), None]:
        made = alone if at is None else sampler(at)
        tried.append(_measured(made, at, operations, judge.row(made, cell, judge.seen)))
        yield f"at {tried[-1].at}: {tried[-1].seen.distance:.4g}"
    yield "checking on unseen seeds"
    whole = _checked(tried[0], sampler, cell, judge)
    chosen, checked = whole, {T: whole}
    for one in reversed(tried[1:-1]):  # the cheapest first
        if not _as_good(one.seen, whole.seen):
            continue
        checked[one.at or T] = found = _checked(one, sampler, cell, judge)
        if found.unseen is not None and whole.unseen is not None and _as_good(found.unseen, whole.unseen):
            chosen = found
            break
    yield TunedHandOver(chosen, tuple(checked.get(-1 if one.at is None else one.at, one) for one in tried))


def _measured(made: Sampler, at: Time | None, operations: tuple[int, int] | None, row: Row) -> HandOver:
    asked = made.asked()
    early = sum(made.denoise.calls_at(t) for t in asked if at is None or t > at)
    late = sum(made.denoise.calls_at(t) for t in asked) - early
    cost = None
    if operations is not None:
        cost = (early * operations[0] + late * operations[1]) / ((early + late) * operations[1])
    return HandOver(at, early, late, cost, row)


def _checked(one: HandOver, sampler: Callable[[Any], Sampler], cell: Cell, judge: Judge) -> HandOver:
    if one.at is None:
        raise ValueError("the small network alone is no hand-over")
    return replace(one, unseen=judge.row(sampler(one.at), cell, judge.unseen))


def _as_good(row: Row, whole: Row) -> bool:
    """Within two standard errors of it, resampled at the same seeds; or better."""
    over, error = above(row, whole)
    return over <= 2.0 * (error or 0.0)
