"""`Space`: between what a process walks in and pictures in [-1, 1]. The one place where ranges are converted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn.functional import max_pool2d

from ddim.refused import Refused


@dataclass(frozen=True)
class Space(ABC):
    """Where a process walks: states of `state_shape` stand for pictures of `image_shape` (C, H, W) in [-1, 1]."""

    state_shape: tuple[int, ...]
    image_shape: tuple[int, ...]

    @property
    @abstractmethod
    def unit(self) -> float:
        """How far apart in [-1, 1] two pictures are whose states differ by 1; 1 where no number says that."""

    @property
    def lossless(self) -> bool:
        """Whether a picture comes back from its state, and densities with it."""
        return True

    def refuse_lossy(self, what: str) -> None:
        """Where pictures do not come back from their states, their likelihood is none of the states'.

        Raises:
            Refused: says so.
        """
        if not self.lossless:
            raise Refused(
                f"{what} is of pictures, and this model has a law of latents alone: an autoencoder loses what it does "
                "not keep, and its change of volume is unknown; give a model of pixels"
            )

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, *image_shape) in [-1, 1] -> states (B, *state_shape)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """States -> pictures in [-1, 1] (not clamped); decode(encode(x)) is x but for rounding."""

    def mask(self, mask: Tensor) -> Tensor:
        """What to paint of a picture, bool (H, W), as what to paint of its state."""
        return mask


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


class Codec(Protocol):
    """What makes latents of pictures, and pictures of latents."""

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LatentSpace(Space):
    """Latents of an autoencoder, scaled to about mean 0 and std 1: decode(encode(x)) is near x, never x itself."""

    codec: Codec

    @property
    def unit(self) -> float:
        """1: what a latent is moved by moves its picture by no fixed amount, so distances stay those of latents."""
        return 1.0

    @property
    def lossless(self) -> bool:
        return False

    def encode(self, x: Tensor) -> Tensor:
        """Pictures in [-1, 1] -> latents.

        Raises:
            Refused: pictures of another shape.
        """
        if tuple(x.shape[1:]) != self.image_shape:
            raise Refused(f"pictures are {tuple(x.shape[1:])} each, but this model makes {self.image_shape}")
        return self.codec.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.codec.decode(z)

    def mask(self, mask: Tensor) -> Tensor:
        """A latent is painted anew where any of its pixels is: what is kept is of kept pixels alone.

        Raises:
            Refused: a mask of another size than the pictures.
        """
        if tuple(mask.shape) != self.image_shape[1:]:
            own, wanted = ("x".join(map(str, s)) for s in (mask.shape, self.image_shape[1:]))
            raise Refused(f"the mask is {own} and pictures are {wanted}: give one of their size")
        sides = [n // m for n, m in zip(self.image_shape[1:], self.state_shape[1:], strict=True)]
        return max_pool2d(mask[None, None].float(), sides)[0, 0] > 0
