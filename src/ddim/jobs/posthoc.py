"""Averages of any length, rebuilt from the snapshots of a training run after it (EDM2, arXiv 2312.02696, section 3)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddim.checkpoints import Checkpoint, open_checkpoint
from ddim.files import weights_hash
from ddim.jobs.evaluate import Cell
from ddim.jobs.train import AVERAGES, Snapshot, read_snapshot, snapshot_files, snapshot_spacing, snapshot_steps
from ddim.nets import LONGEST, combination, gamma_of
from ddim.refused import Refused

LEFT = 0.05  # of an average's weights over time, at most, may be left over
SHORTEST = 0.005


@dataclass(frozen=True, order=True)
class Candidate(Cell):
    """A row of an evaluation of several averages of one run."""

    weights: str = ""

    @property
    def name(self) -> str:
        return f"{super().name}, {self.weights}"


@dataclass(frozen=True)
class Averages:
    """The snapshots that averages at step `step` are rebuilt from; `since` steps were done before the first followed.

    Attributes:
        files: theirs, in order. lengths: kept in each of them.
    """

    run: Path
    files: dict[int, Path]
    step: int
    since: int
    lengths: tuple[float, ...]

    @classmethod
    def of(cls, run: Path, at: int | None = None) -> Averages:
        """Those of a run, up to its last snapshot or that of step `at`.

        Raises:
            Refused: there are none, none of that step, or some are missing; names them.
        """
        there = snapshot_files(run)
        if not there:
            raise Refused(
                f"{run} holds no snapshots of averages ({run / AVERAGES}): it is no training run, or one that keeps "
                "none; gone on with, it keeps them from there on"
            )
        newest = _told(there, max(there))
        own = {step: path for step, path in there.items() if step > newest.since}
        last = newest.step if at is None else at
        if last not in own:
            raise Refused(f"{run} has no snapshot of step {at}; choose `at` of {', '.join(map(str, own))}")
        wanted = snapshot_steps(newest.since, last, snapshot_spacing(newest.step - newest.since))
        missing = [step for step in wanted if step not in own]
        if missing:
            before = max((step for step in own if step < missing[0]), default=None)
            less = "" if before is None else f", or take what was averaged before it by `at` {before}"
            raise Refused(
                f"the snapshots of {run} have a gap: {', '.join(f'step-{s:08d}' for s in missing)} "
                f"{'is' if len(missing) == 1 else 'are'} missing; bring them back{less}"
            )
        return cls(run, {step: own[step] for step in wanted}, last, newest.since, tuple(newest.weights))

    def combination(self, length: float) -> tuple[list[float], float]:
        """The coefficients of the averages in the files, in order, and what is left over: see `nets.combination`."""
        kept = [(float(s - self.since), gamma_of(own)) for s in self.files for own in self.lengths]
        found, left = combination(kept, float(self.step - self.since), gamma_of(length))
        return found.tolist(), left

    def span(self) -> tuple[float, float]:
        """The shortest and the longest length that leave over at most `LEFT`, to three digits."""
        steps = range(round(1000 * SHORTEST), int(1000 * LONGEST) + 1)
        near = [k / 1000 for k in steps if self.combination(k / 1000)[1] <= LEFT]
        return min([*near, *self.lengths]), max([*near, *self.lengths])

    def refuse_beyond(self, lengths: Sequence[float]) -> None:
        """Before any work is done.

        Raises:
            Refused: a length that cannot be rebuilt, with those that can.
        """
        for length in lengths:
            if self.combination(length)[1] > LEFT:
                low, high = self.span()
                raise Refused(
                    f"an average of length {length:g} cannot be rebuilt from the {len(self.files)} snapshots of "
                    f"{self.run}: `length` may be {low:g} to {high:g}"
                )

    def weights(self, lengths: Sequence[float]) -> list[dict[str, Tensor]]:
        """The averages of these lengths, float32, by the names of the parameters; every file is read once.

        Raises:
            Refused: a length that cannot be rebuilt; a file that is damaged, or of another run.
        """
        self.refuse_beyond(lengths)
        parts = [iter(self.combination(length)[0]) for length in lengths]
        totals: list[dict[str, Tensor]] = [{} for _ in lengths]
        for step in self.files:
            kept = _told(self.files, step)
            self._refuse_strange(kept, totals[0])
            for own in self.lengths:
                for total, part in zip(totals, parts, strict=True):
                    much = next(part)
                    for name, value in kept.weights[own].items():
                        total[name] = total.get(name, torch.zeros(value.shape)).add_(value.float(), alpha=much)
        return totals

    def rebuilt(self, lengths: Sequence[float]) -> list[Checkpoint]:
        """The run's model with these averages for its weights.

        Raises:
            Refused: see `weights`; or the folder's model has other weights than the snapshots.
        """
        run, made = open_checkpoint(self.run), []
        for length, found in zip(lengths, self.weights(lengths), strict=True):
            network = copy.deepcopy(run.network)
            if not _alike(dict(network.named_parameters()), found):
                raise Refused(f"the snapshots of {self.run} are of another network than its model; bring its own back")
            network.load_state_dict(found, strict=False)
            made.append(self._checkpoint(run, network, length))
        return made

    def _refuse_strange(self, kept: Snapshot, before: Mapping[str, Tensor]) -> None:
        alike = all(_alike(own, before or own) for own in kept.weights.values())
        if kept.since != self.since or tuple(kept.weights) != self.lengths or not alike:
            raise Refused(f"{self.files[kept.step]} is of another run than the rest of {self.run}; bring its own back")

    def _checkpoint(self, run: Checkpoint, network: nn.Module, length: float) -> Checkpoint:
        told: dict[str, Any] = {
            "weights": "post-hoc ema", "length": length, "steps": self.step,
            "averaged_since": self.since, "snapshots": list(self.files), "snapshot_lengths": list(self.lengths),
            "left_over": float(f"{self.combination(length)[1]:.3g}"),
        }  # fmt: skip
        made = replace(
            run, network=network, source=f"{self.run}, average of length {length:g}",
            sha256=weights_hash(network.state_dict()),
        )  # fmt: skip
        return with_provenance(made, told)


def with_provenance(checkpoint: Checkpoint, more: Mapping[str, Any]) -> Checkpoint:
    """A checkpoint that says more of where its weights come from."""
    said = checkpoint.meta.get("provenance")
    told = {**(said if isinstance(said, Mapping) else {}), **more}
    return replace(checkpoint, meta={**checkpoint.meta, "provenance": told})


def _told(files: dict[int, Path], step: int) -> Snapshot:
    return read_snapshot(files[step])


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two sets of weights have the same names and shapes."""
    return {n: v.shape for n, v in one.items()} == {n: v.shape for n, v in other.items()}
