"""Stitching: one denoiser for the noisy times, another for the clean ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim.denoise.conditions import NONE, Conditions
from ddim.denoise.protocol import Denoiser, Digest
from ddim.denoise.weights import refuse_other_process
from ddim.process import Prediction, Process, Time
from ddim.refused import Refused


@dataclass(frozen=True)
class Stitched(Denoiser):
    """`early` where t > at, `late` elsewhere (T-Stitch, arXiv 2402.14167): a small network for the noisy steps.

    Large features are laid down while there is much noise, and there a small network says nearly what a large one
    says; detail comes last. A call costs what the network costs that serves it.

    Args:
        early: for t > at.
        late: for t <= at; it says what this is (its process, and what a recipe calls it).
        at: the hand-over, within `process.first`..T (1..T on a schedule); at T `late` serves every step.

    Raises:
        Refused: denoisers of different processes; a hand-over outside their times.
    """

    early: Denoiser
    late: Denoiser
    at: Time

    def __post_init__(self) -> None:
        process = self.late.process
        refuse_other_process(process, self.early.process, "the network for the noisy steps")
        refuse_outside(process, self.at)

    @property
    def process(self) -> Process:  # type: ignore[override]  # read-only here
        return self.late.process

    @property
    def invertible(self) -> bool:
        return self.early.invertible and self.late.invertible

    @property
    def one_law(self) -> bool:
        return self.early.one_law and self.late.one_law

    @property
    def variance(self) -> str | None:
        return self.late.variance if self.early.variance == self.late.variance else None

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        if not isinstance(t, Tensor):
            return self.serving(t)(x_t, t, conditions)
        noisy = t.cpu() > self.at
        if bool(noisy.all()) or not bool(noisy.any()):
            return (self.early if len(t) and bool(noisy[0]) else self.late)(x_t, t, conditions)
        parts: list[Prediction] = []
        order: list[Tensor] = []
        for denoise, own in ((self.early, noisy), (self.late, ~noisy)):
            rows = own.nonzero()[:, 0]
            order.append(rows.to(x_t.device))
            parts.append(denoise.rows(rows)(x_t[order[-1]], t[rows.to(t.device)], conditions.rows(rows)))
        back = torch.cat(order).argsort()
        x0, eps = (torch.cat([getattr(p, name) for p in parts])[back] for name in ("x0", "eps"))
        said = [p.variance for p in parts if p.variance is not None]
        return Prediction(x0, eps, torch.cat(said)[back] if len(said) == len(parts) else None)

    def serving(self, t: Time) -> Denoiser:
        """The one that is asked at t."""
        return self.early if t > self.at else self.late

    def describe(self) -> dict[str, Any]:
        return {**self.late.describe(), "early": {**self.early.describe(), "at": self.at}}

    def rows(self, index: Tensor) -> Stitched:
        return type(self)(self.early.rows(index), self.late.rows(index), self.at)

    def pinned(self) -> Stitched:
        return type(self)(self.early.pinned(), self.late.pinned(), self.at)

    def calls_at(self, t: Time | Tensor) -> int:
        if isinstance(t, Tensor):
            return max(self.early.calls_at(t), self.late.calls_at(t))
        return self.serving(t).calls_at(t)

    def identify(self, digest: Digest) -> None:
        self.early.identify(digest)
        self.late.identify(digest)


def refuse_outside(process: Process, at: Time) -> None:
    """A hand-over that is none of the process's times.

    Raises:
        Refused: shows its times.
    """
    (found,) = process.checked((at,)) if isinstance(at, int | float) and 0 <= at <= process.T else (None,)
    if found is None or not process.first <= found <= process.T:
        raise Refused(
            f"the hand-over `at` = {at} lies outside {process.first:g}..{process.T:g}, the times of this process: "
            "the network for the noisy steps serves those above it, the other the rest"
        )
