"""The weight of guidance and its interval, chosen together by the images they make.

From coarse to fine: a table of weights by stretches of the walk, then moves of the weight and of both ends from the
best of them, in strides that shrink. All candidates make images from the same seeds. The winner, and the best without
an interval, are then measured on seeds that nothing was searched on, beside the plain model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ddim.denoise import Interval
from ddim.jobs.evaluate import Cell, Row, above
from ddim.jobs.judging import Judge
from ddim.model import Sampler

WEIGHTS = (1.25, 1.5, 2.0, 3.0)
GAINS = ((2.0**0.5, 6), (2.0**0.25, 12))  # of the weight less 1; parts of the walk by which an end moves
Span = Interval | None


@dataclass(frozen=True)
class GuidanceTried:
    """One weight within one interval (None: everywhere), by the seeds searched on and by unseen ones."""

    weight: float
    interval: Span
    seen: Row
    unseen: Row | None = None


@dataclass(frozen=True)
class TunedGuidance:
    """The outcome.

    Attributes:
        chosen: the best on unseen seeds; the plain model where that is not two standard errors better than it.
        finalists: those measured on unseen seeds, the plain model first.
        tried: everything, in the order it was tried.
    """

    chosen: GuidanceTried
    finalists: tuple[GuidanceTried, ...]
    tried: tuple[GuidanceTried, ...]


def tune_guidance(
    sampler: Callable[[float, Span], Sampler], cell: Cell, judge: Judge, *, trials: int = 100
) -> Iterator[str | TunedGuidance]:
    """Search weight and interval for this sampler; yields what was tried, and at last the result.

    Args:
        sampler: of a weight and an interval of times; weight 1 is the plain model.
        trials: at most as many after the coarse table; the search ends by itself.
    """
    plain = sampler(1.0, None)
    search = _Search(sampler, cell, judge, plain.tau[:-1])
    for weight, first, last in [(1.0, 0, search.end), *_coarse(search.end)]:
        yield search.told(weight, first, last)
    left = trials
    for gain, parts in GAINS:
        stride, gained = max(1, round((search.end + 1) / parts)), True
        while gained and left > 0:
            start = search.best()
            for move in _moves(start, search.end, gain, stride):
                if left > 0 and move not in search.rows:
                    left -= 1
                    yield search.told(*move)
            gained = search.best() != start
    yield "checking on unseen seeds"
    yield search.checked()


class _Search:
    """Candidates (weight, first, last), first and last being places in the walk's times, and their rows."""

    def __init__(
        self, sampler: Callable[[float, Span], Sampler], cell: Cell, judge: Judge, times: Sequence[int]
    ) -> None:
        self.sampler, self.cell, self.judge, self.times = sampler, cell, judge, times
        self.end = len(times) - 1
        self.rows: dict[tuple[float, int, int], Row] = {}

    def told(self, weight: float, first: int, last: int) -> str:
        """Measure one, and say so."""
        key, span = (weight, first, last), self.interval(first, last)
        if key not in self.rows:
            self.rows[key] = self.judge.row(self.sampler(weight, span), self.cell, self.judge.seen)
        return f"{len(self.rows)}: weight {weight:g}, {words(span)}: {self.rows[key].distance:.4g}"

    def interval(self, first: int, last: int) -> Span:
        """In times; None for the whole walk."""
        return None if (first, last) == (0, self.end) else (self.times[last], self.times[first])

    def best(self, whole: bool = False) -> tuple[float, int, int]:
        """That of the smallest distance beside the plain model; of those on the whole walk, where asked."""
        keys = [k for k in self.rows if k[0] != 1.0 and (not whole or k[1:] == (0, self.end))]
        return min(keys, key=lambda k: self.rows[k].distance)

    def checked(self) -> TunedGuidance:
        tried = {k: GuidanceTried(k[0], self.interval(*k[1:]), row) for k, row in self.rows.items()}
        finalists = []
        for key in dict.fromkeys([(1.0, 0, self.end), self.best(whole=True), self.best()]):
            one = tried[key]
            row = self.judge.row(self.sampler(one.weight, one.interval), self.cell, self.judge.unseen)
            finalists.append(replace(one, unseen=row))
        return TunedGuidance(_chosen(finalists), tuple(finalists), tuple(tried.values()))


def _chosen(finalists: Sequence[GuidanceTried]) -> GuidanceTried:
    plain, *others = [(one, one.unseen) for one in finalists if one.unseen is not None]
    best, row = min(others, key=lambda pair: pair[1].distance)
    below, error = above(plain[1], row)
    return best if below > 2.0 * (error or 0.0) else plain[0]


def _coarse(end: int) -> list[tuple[float, int, int]]:
    third = (end + 1) // 3
    spans = dict.fromkeys([(0, end), (third, end), (0, end - third), (third, end - third)])
    return [(weight, first, last) for first, last in spans for weight in WEIGHTS]


def _moves(at: tuple[float, int, int], end: int, gain: float, stride: int) -> list[tuple[float, int, int]]:
    """Neighbours of a candidate: another weight, or one end elsewhere."""
    weight, first, last = at
    found = [(round(1.0 + (weight - 1.0) * g, 3), first, last) for g in (gain, 1.0 / gain)]
    found += [(weight, max(0, first - stride), last), (weight, min(first + stride, last), last)]
    found += [(weight, first, max(last - stride, first)), (weight, first, min(last + stride, end))]
    return [move for move in dict.fromkeys(found) if move != at]


def words(interval: Span) -> str:
    """ "200..800", or "all of it"."""
    return "everywhere" if interval is None else f"{interval[0]:g}..{interval[1]:g}"
