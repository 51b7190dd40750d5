"""What a solver is: one way to step from t to s.

It never changes and holds no state; what survives a step is the carry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, Self, TypeVar

from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Prediction, Time
from ddim.refused import Refused

C = TypeVar("C")
Past = tuple[tuple[Time, Tensor], ...]
"""Earlier predictions, newest first: (time, prediction)."""


class Step(NamedTuple, Generic[C]):
    """What one step did: x at s (B, *), what survives it, its first prediction (at t), the calls it took.

    A solver counts calls of the denoiser, `trajectory` those of the network: two where guidance asks twice.
    """

    x: Tensor
    carry: C
    prediction: Prediction
    calls: int


class Solver(ABC, Generic[C]):
    """A method. It owns no process (the denoiser carries it), no position, no tau, no condition.

    What it is, is a fact of its class or of what it was made with; nothing can be made up for one object.
    """

    @property
    @abstractmethod
    def order(self) -> int:
        """The order of convergence, measured by tests/laws/test_order.py."""

    @property
    def stochastic(self) -> bool:
        """Whether steps need fresh noise z."""
        return False

    @property
    def draws(self) -> int:
        """Independent tensors of noise a step takes; z has them in front, (draws, B, *), where they are several."""
        return 1

    @property
    def needs_variance(self) -> bool:
        """Whether steps use the variance that a network says."""
        return False

    @abstractmethod
    def init(self) -> C:
        """The carry before the first step."""

    @abstractmethod
    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: C, z: Tensor | None) -> Step[C]:
        """x at t -> x at s. z is N(0, 1) noise like x, or None when the solver is not stochastic."""

    def suits(self, denoise: Denoiser) -> None:
        """Refuse a denoiser that does not say what the steps need.

        Raises:
            Refused: tells the remedy.
        """
        if self.needs_variance and denoise.variance is None:
            raise Refused(
                "sigma = 'learned' needs a network that predicts a variance, and this one does not, or nobody knows "
                "what its second channels mean (then give learned_range: in Python `learned_variance` of the "
                "denoiser, else the setting variance_type); eta = 1 needs none"
            )

    def rows(self, index: slice) -> Self:
        """The solver for these images of the batch: another one only where numbers are an image's own."""
        return self

    def check(self, batch: int) -> None:
        """Refuse a batch of another size than there are numbers.

        Raises:
            Refused: shows both.
        """

    def calls(self, tau: Sequence[Any]) -> int:
        """Calls of the denoiser in a walk over these times; one a step unless a solver says otherwise."""
        return len(tau) - 1
