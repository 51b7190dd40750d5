"""What a denoiser is: x_t and t in, the pair (x0, eps) out; and how wrappers pass on what they do not change.

A denoiser carries the process it was trained on. Whoever wants to know something about one asks it (`invertible`,
`describe`, `rows`): nobody looks through a wrapper's attributes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

from torch import Tensor

from ddim.denoise.conditions import NONE, Conditions
from ddim.process import Prediction, Process, Time


class Digest(Protocol):
    """A hash that takes bytes, as hashlib's do."""

    def update(self, data: bytes, /) -> None: ...


class Denoiser(ABC):
    """x_t (B, *), t (one time for the whole batch, or (B,)) and conditions -> Prediction, each part (B, *)."""

    process: Process

    @property
    @abstractmethod
    def invertible(self) -> bool:
        """Whether what it says of x_t loses nothing, so that images can be encoded through it. A clip loses."""

    @property
    def one_law(self) -> bool:
        """Whether its eps is meant as the score of one law at every time, so that images have a likelihood under it."""
        return self.invertible

    @property
    def variance(self) -> str | None:
        """What the `variance` of its predictions means, see `ddim.process.learned_std`; None where they have none."""
        return None

    @property
    def loses(self) -> str:
        """Why nothing can be encoded through it, where that is so, in words that follow its name."""
        return (
            "changes x0 in a way that cannot be undone, so nothing can be encoded through it; "
            "encode and decode with clip=False"
        )

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction: ...

    def describe(self) -> dict[str, Any]:
        """What it does beside asking a network, as JSON: for recipes, which take a list for one entry an image."""
        return {}

    def rows(self, index: Tensor) -> Denoiser:
        """The denoiser for these images of the batch: another one only where conditions are held."""
        return self

    def pinned(self) -> Denoiser:
        """The denoiser for one walk: what has to be looked at (weights that may have changed) is looked at now."""
        return self

    def calls_at(self, t: Time | Tensor) -> int:
        """Network calls an image that asking it at t takes: 1, unless it asks more than once, or several networks."""
        return 1

    def identify(self, digest: Digest) -> None:  # noqa: B027  an oracle has no weights to tell
        """Feed what tells its weights from others."""


@dataclass(frozen=True)
class Wrapper(Denoiser):
    """A denoiser that holds another one; it passes on everything it does not override."""

    denoise: Denoiser

    @property
    def process(self) -> Process:  # type: ignore[override]  # read-only here
        return self.denoise.process

    @property
    def invertible(self) -> bool:
        return self.denoise.invertible

    @property
    def one_law(self) -> bool:
        return self.invertible and self.denoise.one_law

    @property
    def variance(self) -> str | None:
        return self.denoise.variance

    @property
    def loses(self) -> str:
        return self.denoise.loses if not self.denoise.invertible else super().loses

    def describe(self) -> dict[str, Any]:
        return self.denoise.describe()

    def rows(self, index: Tensor) -> Self:
        return replace(self, denoise=self.denoise.rows(index))

    def pinned(self) -> Self:
        return replace(self, denoise=self.denoise.pinned())

    def calls_at(self, t: Time | Tensor) -> int:
        return self.denoise.calls_at(t)

    def identify(self, digest: Digest) -> None:
        self.denoise.identify(digest)
