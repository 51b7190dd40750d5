"""The options of commands that guide, or hand over between networks: the other models they name, loaded once.

Like `options`, a file of words: nothing here imports torch before a command runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import ddim
from ddim.cli import typed
from ddim.refused import Refused


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What stands beside the model."""

    @cached_property
    def steering(self) -> dict[str, Any]:
        """These options as `Model.sampler` takes them; those that were not given are left out."""
        return {}

    def other(self, model: str) -> ddim.Model:
        """Another model than the command's own, on the same device."""
        return ddim.load(model, device=getattr(self, "device", "cpu"))


@dataclass(frozen=True, kw_only=True)
class GuidedBy(Beside):
    """By what is guided, and when."""

    guide: str | None = None
    """Another model to guide by in place of the open label: an early checkpoint of the same run, or a smaller network
    trained alike (autoguidance)."""
    interval: str | None = None
    """Guide only while t lies in LOW,HIGH, e.g. "200,800"; elsewhere the model alone is asked."""

    @cached_property
    def steering(self) -> dict[str, Any]:
        guide = {} if self.guide is None else {"guide": self.other(self.guide)}
        interval = {} if self.interval is None else {"interval": _interval(self.interval)}
        return {**super().steering, **guide, **interval}


@dataclass(frozen=True, kw_only=True)
class Steered(GuidedBy):
    """How strongly the class, or the way out of a guide's mistakes, is followed."""

    guidance: float | Literal["tuned"] = 1.0
    """Weight of guidance, classifier-free or by --guide; 1 is the plain network, "tuned" what ddim tune found."""

    @cached_property
    def steering(self) -> dict[str, Any]:
        if self.guide is not None and self.guidance == 1.0:
            raise Refused("--guide does nothing at weight 1: give --guidance, e.g. 2 (or tuned)")
        return super().steering


@dataclass(frozen=True, kw_only=True)
class HandedOver(Beside):
    """Two networks."""

    early: str | None = None
    """Another model, smaller, for the noisy steps, those with t > AT (stitching)."""
    at: float | None = None
    """With --early: the hand-over, 1 to T; default: the one that ddim tune found."""

    @cached_property
    def steering(self) -> dict[str, Any]:
        early = {} if self.early is None else {"early": self.other(self.early)}
        return {**super().steering, **early, **({} if self.at is None else {"at": typed.time_of(self.at)})}


def _interval(text: str) -> tuple[float, ...]:
    found = tuple(map(typed.time_of, typed.reals(text, "--interval")))
    if len(found) != 2:
        raise Refused(f'--interval takes two times like "200,800", got {text!r}')
    return found
