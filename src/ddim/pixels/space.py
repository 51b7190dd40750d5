"""`Space`: between what a process walks in and pictures in [-1, 1]. The one place where ranges are converted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Space(ABC):
    """Where a process walks: states of `state_shape` stand for pictures of `image_shape` (C, H, W) in [-1, 1]."""

    state_shape: tuple[int, ...]
    image_shape: tuple[int, ...]

    @property
    @abstractmethod
    def unit(self) -> float:
        """How far apart in [-1, 1] two pictures are whose states differ by 1."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, *image_shape) in [-1, 1] -> states (B, *state_shape)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """States -> pictures in [-1, 1] (not clamped); decode(encode(x)) is x but for rounding."""


@dataclass(frozen=True)
class PixelSpace(Space):
    """Pixels themselves, in the numbers a network was trained on: `low` is black, `high` is white."""

    low: float = -1.0
    high: float = 1.0

    @classmethod
    def of(cls, shape: tuple[int, ...], data_range: tuple[float, float] = (-1.0, 1.0)) -> PixelSpace:
        """Pictures of that shape (C, H, W) with numbers of that range."""
        return cls(shape, shape, *data_range)

    @property
    def unit(self) -> float:
        return 2.0 / (self.high - self.low)

    def encode(self, x: Tensor) -> Tensor:
        return x if (self.low, self.high) == (-1.0, 1.0) else (x + 1.0) / self.unit + self.low

    def decode(self, z: Tensor) -> Tensor:
        return z if (self.low, self.high) == (-1.0, 1.0) else (z - self.low) * self.unit - 1.0
