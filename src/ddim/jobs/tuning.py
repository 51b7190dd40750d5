"""Times chosen for one checkpoint under a budget of calls, kept beside its weights.

Two roads. `ddim.uses.closed_form` is exact for Gaussian data and knows nothing of the network. `tune` searches on the
network's own error against a long trajectory, for the solver that will be used, and checks the result on
latents it did not see; all rivals, the closed form among them, are measured on both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ddim.files import read_json
from ddim.model import Sampler
from ddim.process import Process, tau
from ddim.refused import Refused
from ddim.solve import sample
from ddim.uses import Walk, best_path, moved, walk_long

NAMED = ("uniform", "trailing", "quadratic", "logsnr")
FIRST_SEED, FIRST_UNSEEN = 1_000_000, 2_000_000  # far from the seeds people evaluate with


@dataclass(frozen=True)
class Rival:
    """One choice of times and its distance, in x_0, to the long trajectory: on latents searched on, and unseen.

    The distance is the geometric mean over latents of each image's RMS difference: the typical one. A mean square is
    ruled by the few latents that end in another mode, whatever the times, and searching on it fits those few.
    """

    name: str
    tau: tuple[Any, ...]
    seen: float
    unseen: float


@dataclass(frozen=True)
class Tuned:
    """The outcome: the chosen rival, and all of them."""

    chosen: Rival
    rivals: tuple[Rival, ...]

    def as_json(self) -> dict[str, Any]:
        """The name of the chosen one, and all rivals."""
        rivals = [{"name": v.name, "seen": v.seen, "unseen": v.unseen, "tau": list(v.tau)} for v in self.rivals]
        return {"chosen": self.chosen.name, "rivals": rivals}

    @classmethod
    def load(cls, path: Path) -> Tuned:
        """What was written as `as_json`.

        Raises:
            Refused: damaged; to remove it is to search anew.
        """
        told = read_json(path)
        try:
            rivals = tuple(Rival(v["name"], tuple(v["tau"]), v["seen"], v["unseen"]) for v in told["rivals"])
            return cls(next(v for v in rivals if v.name == told["chosen"]), rivals)
        except (KeyError, TypeError, StopIteration):
            raise Refused(f"{path} is damaged: remove it, and these times are searched again") from None


def tune(
    sampler: Sampler,
    *,
    others: Mapping[str, tuple[Any, ...]],
    latents: int = 128,
    long: int = 150,
    candidates: int = 40,
    trials: int = 100,
    batch_size: int = 64,
) -> Iterator[str | Tuned]:
    """Search times for this sampler, as many as it has; yields what it is doing, and at last the result.

    1. A long trajectory from each latent, and the network's answers along it, are recorded.
    2. Dynamic programming over the recorded answers: the path whose steps, started from the exact states, have
       the smallest sum of errors (`ddim.uses.best_path`). No network calls.
    3. Coordinate search from the best start so far, on the distance (`Rival`) to the end of the long trajectory.
    4. All rivals on latents not used before. The best there is chosen: if the search was lucky, it shows.

    Args:
        sampler: of a deterministic solver.
        others: rivals by name, e.g. the closed form; the named spacings are always among them.
        latents: how many to search on, and as many to check on.
        long: steps of the long trajectory. candidates: times the path may use. trials: of the coordinate search.

    Raises:
        Refused: a stochastic solver; more steps than candidates allow; a long trajectory of more steps than T.
    """
    process, steps = sampler.denoise.process, len(sampler.tau) - 1
    if process.discrete and long > process.T:
        raise Refused(f"`long` counts steps on a schedule of {process.T} times: that is the most, got {long}")
    if sampler.solver.stochastic:
        raise Refused("times are tuned for deterministic solvers: a noisy one has no trajectory to be close to")
    seeds = range(FIRST_SEED, FIRST_SEED + latents)
    nodes = candidate_times(process, max(candidates, steps + 1), steps)
    yield f"long trajectories of {latents} latents"
    seen = _walks(sampler, seeds, nodes, long, batch_size)
    names = NAMED if process.discrete else (*NAMED, "edm")
    rivals = {name: tau(process, steps, name) for name in names} | dict(others)
    yield f"dynamic programming over {len(nodes)} times"
    rivals["dynamic programming"] = best_path(seen.first(64), sampler.solver, steps)

    def distance(times: Sequence[Any], walk: Walk = seen, of: Sequence[int] = seeds) -> float:
        return _distance(sampler, times, walk, of, batch_size)

    scores = {name: distance(times) for name, times in rivals.items()}
    start = min(scores, key=lambda name: scores[name])
    times, score = yield from _searched(rivals[start], scores[start], distance, trials)
    if times != rivals[start]:
        rivals["search"], scores["search"] = times, score
    yield "checking on unseen latents"
    fresh = range(FIRST_UNSEEN, FIRST_UNSEEN + latents)
    unseen = _walks(sampler, fresh, (process.T, 0), long, batch_size)
    table = tuple(Rival(n, tuple(t), scores[n], distance(t, unseen, fresh)) for n, t in rivals.items())
    yield Tuned(min(table, key=lambda r: r.unseen), table)


def _searched(
    times: tuple[Any, ...], score: float, distance: Callable[[Sequence[Any]], float], trials: int
) -> Generator[str, None, tuple[tuple[Any, ...], float]]:
    """The best times found by moving one at a time, in strides that shrink as they gain little, and their distance."""
    left, stride = trials, 0.5
    while left > 0 and stride > 0.02:
        before = score
        for trial in moved(times, stride):
            if left == 0:
                break
            left -= 1
            value = distance(trial)
            if value < score:
                times, score = trial, value
                yield f"search, {trials - left} of {trials}: distance {score:.4f}"
        stride = stride if score < 0.98 * before else stride / 2
    return times, score


def candidate_times(process: Process, count: int, steps: int) -> tuple[Any, ...]:
    """About `count` times to choose from, falling, T and 0 among them: half even in t, half even in log SNR.

    Raises:
        Refused: steps outside 1..T.
    """
    tau(process, steps)
    count = min(count, process.T) if process.discrete else count
    times = {t for name in ("trailing", "logsnr") for t in tau(process, max(1, count // 2), name)}
    while len(times) < steps + 1:  # nearly every time is wanted: fill the widest gaps
        ordered = sorted(times)
        low, high = max(pairwise(ordered), key=lambda p: p[1] - p[0])
        times.add((low + high) // 2 if process.discrete else (low + high) / 2)
    return tuple(sorted(times, reverse=True))


def _walks(sampler: Sampler, seeds: Sequence[int], nodes: Sequence[Any], long: int, batch_size: int) -> Walk:
    parts = [seeds[i : i + batch_size] for i in range(0, len(seeds), batch_size)]
    walk = Walk.joined([walk_long(sampler.bound(part), sampler.start(part), nodes, long) for part in parts])
    if not bool(walk.states[0].isfinite().all()):
        raise Refused(
            "the long trajectories do not end in finite numbers (NaN or infinity), so nothing can come close to them: "
            "try `precision` fp32 or a `guidance` nearer 1, or check the model's weights"
        )
    return walk


def _distance(sampler: Sampler, times: Sequence[Any], walk: Walk, seeds: Sequence[int], batch_size: int) -> float:
    """From what the solver makes from x_T to the end of the long trajectory: exp mean_i log rms_i, i over latents."""
    logs, start, end = 0.0, walk.states[walk.times[0]], walk.states[0]
    for i in range(0, len(seeds), batch_size):
        rows = slice(i, i + batch_size)
        apart = sample(sampler.bound(seeds[rows]), start[rows], times, solver=sampler.solver) - end[rows]
        logs += float(apart.double().square().flatten(1).mean(1).clamp(min=1e-24).sqrt().log().sum())
    return math.exp(logs / len(end))
