"""What a network is told of time: a number for every t, as the programs that train networks agreed on it.

DDPM's networks get the index t - 1; score_sde's 999 t on its preserving processes, and the noise itself on VE; EDM's
log(sigma)/4; flow matching in diffusers 1000 t. All are scale * clock(t) + shift, with one of three clocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim.process.continuous import Continuous, process_of
from ddim.process.level import Process
from ddim.refused import Refused

CLOCKS = ("time", "noise", "log-sigma")


@dataclass(frozen=True)
class TimeLabel:
    """scale * clock(t) + shift, where clock is t itself ("time"), noise(t), or log(noise(t)/signal(t)) ("log-sigma").

    Args:
        clock: one of `CLOCKS`.
        of: the process on which the clock goes, where that is another than the one walked on: its time of the same
            noise/signal counts.

    Raises:
        Refused: an unknown clock.
    """

    clock: str
    scale: float = 1.0
    shift: float = 0.0
    of: Continuous | None = None

    def __post_init__(self) -> None:
        if self.clock not in CLOCKS:
            raise Refused(f"unknown clock {self.clock!r} of a time label; choose one of {', '.join(CLOCKS)}")

    def __call__(self, t: Tensor, process: Process) -> Tensor:
        """The label of times t (B,), float32 (B,).

        Raises:
            Refused: "log-sigma" where there is no signal, or no noise.
        """
        device, t = t.device, t.cpu()
        like = torch.zeros((len(t), 1), dtype=torch.float64)
        at = process.at_batch(t, like)
        if self.of is not None:
            ratios = (at.noise / at.signal).flatten().tolist()
            t = torch.tensor([self.of.time_of(ratio) for ratio in ratios], dtype=torch.float64)
            at = self.of.at_batch(t, like)
        if self.clock == "time":
            value = t.double()
        else:
            value = (at.noise if self.clock == "noise" else (at.noise / at.signal).log()).flatten()
        label = self.scale * value + self.shift
        if not bool(torch.isfinite(label).all()):
            raise Refused("a network told log(noise/signal) cannot be asked where there is no signal, or no noise")
        return label.to(device, torch.float32)

    def as_json(self) -> dict[str, Any]:
        """As a file keeps it."""
        of = None if self.of is None else {"kind": self.of.kind, **(self.of.numbers or {})}
        return {"clock": self.clock, "scale": self.scale, "shift": self.shift, "of": of}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> TimeLabel:
        """What `as_json` gave."""
        told = dict(value.get("of") or {})
        of = process_of(told.pop("kind"), told) if told else None
        return cls(value["clock"], float(value.get("scale", 1.0)), float(value.get("shift", 0.0)), of)

    def __str__(self) -> str:
        clock = {"time": "t", "noise": "noise", "log-sigma": "log(noise/signal)"}[self.clock]
        scale = "" if self.scale == 1.0 else f"{self.scale:g} "
        shift = "" if self.shift == 0.0 else f" {self.shift:+g}"
        return f"{scale}{clock}{shift}" + ("" if self.of is None else f", t of {self.of.name}")
