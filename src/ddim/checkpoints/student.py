"""What a checkpoint says of itself where it is a student: which walk it has learnt, and of whom."""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

from ddim.stored import is_number

KINDS = ("progressive", "consistency")


@dataclass(frozen=True)
class Student:
    """A network that stands for a few large steps.

    Attributes:
        kind: "progressive", DDIM's jumps between its own times, or "consistency", from anywhere to the image.
        tau: its times, falling, the last one 0; of a consistency student those of the most calls it is meant for.
        teacher: sha256 of the weights it learnt from.
        guidance: the weight of classifier-free guidance that is folded in; 1 for none.
    """

    kind: str
    tau: tuple[Any, ...]
    teacher: str
    guidance: float = 1.0

    @property
    def steps(self) -> int:
        """Its steps, or the most calls it is meant for."""
        return len(self.tau) - 1

    @property
    def consistent(self) -> bool:
        """Whether it is read as a consistency function."""
        return self.kind == "consistency"

    def as_json(self) -> dict[str, Any]:
        """As ddim.json keeps it."""
        return asdict(self) | {"tau": list(self.tau)}

    @classmethod
    def of(cls, value: Any) -> Student | None:
        """What `as_json` gave, or None where it is no such thing."""
        if not isinstance(value, dict) or set(value) != {"kind", "tau", "teacher", "guidance"}:
            return None
        tau = value["tau"]
        fits = isinstance(tau, list) and len(tau) > 1 and all(is_number(t) for t in tau) and tau[-1] == 0
        fits = fits and all(t > s for t, s in itertools.pairwise(tau))
        if not fits or value["kind"] not in KINDS or not isinstance(value["teacher"], str):
            return None
        if not is_number(value["guidance"]):
            return None
        return cls(value["kind"], tuple(tau), value["teacher"], float(value["guidance"]))
