"""What an extractor is, and those that come with the package: two small classifiers, and the pixels themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ddim.files import sha256
from ddim.metrics.classifier import (
    COLOUR_CLASSES,
    COLOUR_SIDE,
    COLOUR_WEIGHTS,
    SIDE,
    WEIGHTS,
    ColourClassifier,
    DigitClassifier,
    load_classifier,
    load_colour_classifier,
)
from ddim.refused import Refused

PIXEL_SIDE = 32


class Extractor(Protocol):
    """Images float (B, C, H, W) in [-1, 1] -> features (B, D), and scores of classes where it has any."""

    name: str
    resize: str
    weights_hash: str
    class_names: tuple[str, ...] | None

    def features(self, images: Tensor) -> Tensor:
        """(B, D), float32."""
        ...

    def logits(self, images: Tensor) -> Tensor | None:
        """(B, K), or None for an extractor without classes."""
        ...

    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features and logits in one pass."""
        ...


class BaseExtractor(ABC):
    name = ""
    resize = "none"
    weights_hash = ""
    class_names: tuple[str, ...] | None = None

    @abstractmethod
    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]: ...

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        return self.both(images)[0]

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor | None:
        return self.both(images)[1]


class Digits(BaseExtractor):
    """The bundled digit classifier: 64 features, 10 classes. Other sizes than 28x28 are brought to MNIST's layout."""

    name = "mnist"
    class_names: tuple[str, ...] | None = tuple("0123456789")

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.network: DigitClassifier = load_classifier().to(device)
        self.device, self.weights_hash = device, sha256(WEIGHTS)
        self.resize = "28x28 as they are; 32x32: middle; smaller: bicubic 20x20 in a border; larger: bilinear 28x28"

    @torch.no_grad()
    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if images.shape[1] != 1:
            raise _wrong_channels("mnist", "grey", images.shape[1])
        if images.shape[2:] == (32, 32):
            images = images[..., 2:30, 2:30]  # 28x28 with a border of 2, the usual padding of MNIST
        elif max(images.shape[2:]) < SIDE:  # small scans fill their frame; MNIST's digits fill 20x20 of 28x28
            small = functional.interpolate(images, (20, 20), mode="bicubic", antialias=True).clamp(-1, 1)
            images = functional.pad(small, (4, 4, 4, 4), value=-1.0)
        elif images.shape[2:] != (SIDE, SIDE):
            images = functional.interpolate(images, (SIDE, SIDE), mode="bilinear", antialias=True)
        f = self.network.features(images.to(self.device, torch.float32))
        return f.cpu(), self.network.head(f).cpu()


class Colour(BaseExtractor):
    """The bundled classifier of small colour pictures: 96 features, the 10 classes of CIFAR-10."""

    name = "colour"
    class_names: tuple[str, ...] | None = COLOUR_CLASSES
    resize = "to 32x32 by antialiased bilinear, proportions not kept"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.network: ColourClassifier = load_colour_classifier().to(device)
        self.device, self.weights_hash = device, sha256(COLOUR_WEIGHTS)

    @torch.no_grad()
    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        if images.shape[1] != 3:
            raise _wrong_channels("colour", "RGB", images.shape[1])
        side = (COLOUR_SIDE, COLOUR_SIDE)
        if images.shape[2:] != side:
            images = functional.interpolate(images.float(), side, mode="bilinear", antialias=True)
        f = self.network.features(images.to(self.device, torch.float32))
        return f.cpu(), self.network.head(f).cpu()


class RawPixels(BaseExtractor):
    """The pixels themselves, averaged down to 32x32 at most. Never choose tau by it: see docs/evaluation.md."""

    name = "pixels"
    resize = f"mean of blocks, to {PIXEL_SIDE}x{PIXEL_SIDE} at most"

    @torch.no_grad()
    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        h, w = (min(n, PIXEL_SIDE) for n in images.shape[2:])
        return functional.adaptive_avg_pool2d(images.float(), (h, w)).flatten(1).cpu(), None


def _wrong_channels(name: str, kind: str, channels: int) -> Refused:
    return Refused(
        f"extractor {name!r} reads {kind} images, got {channels} channels; choose another `extractor`: mnist (grey), "
        "colour (RGB), inception, dinov2, pixels (any), or a file of your own (.onnx)"
    )
