"""The bundled classifiers: of handwritten digits, 28x28 grey, and of small colour pictures, 32x32 RGB.

They exist because the standard Inception network was never made for digits, and because its weights cannot
come with this package. How they were trained: `tools/train_mnist_classifier.py`, `tools/train_cifar_classifier.py`,
docs/evaluation.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ddim.refused import Refused

WEIGHTS = Path(__file__).parent.parent / "bundled" / "mnist-classifier.safetensors"
COLOUR_WEIGHTS = WEIGHTS.with_name("colour-classifier.safetensors")
CHANNELS = ((1, 16, 1), (16, 32, 2), (32, 48, 1), (48, 64, 2), (64, 64, 1))  # in, out, stride of each convolution
SIDE, CLASSES = 28, 10
COLOUR_SIDE = 32
COLOUR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
COLOUR_WIDTHS = (24, 48, 96)
N = TypeVar("N", bound=nn.Module)


class DigitClassifier(nn.Module):
    """Five 3x3 convolutions with ReLU, the mean over the 7x7 places, one linear layer: 84k weights.

    Input: float (B, 1, 28, 28) in [-1, 1]. Batch normalisation, used in training, is folded into the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=s, padding=1) for i, o, s in CHANNELS)
        self.head = nn.Linear(CHANNELS[-1][1], CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """The 64 numbers before the last layer, (B, 64).

        Raises:
            Refused: images that are not (B, 1, 28, 28).
        """
        if x.ndim != 4 or x.shape[1:] != (1, SIDE, SIDE):
            raise Refused(f"the mnist classifier reads grey 28x28 images, (B, 1, 28, 28), got {tuple(x.shape)}")
        h = (x.clamp(-1.0, 1.0) + 1.0) / 2.0  # black is 0, as the padding
        for conv in self.convs:
            h = torch.relu(conv(h))
        return h.mean((2, 3))

    def logits(self, x: Tensor) -> Tensor:
        """Scores of the classes 0..9 before the softmax, (B, 10)."""
        out: Tensor = self.head(self.features(x))
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x)


class ColourClassifier(nn.Module):
    """A stem at full size, two levels of half the size each with a residual block, the mean over 8x8: 0.3M weights.

    Input: float (B, 3, 32, 32) in [-1, 1]. Batch normalisation, used in training, is folded into the weights.
    """

    def __init__(self) -> None:
        super().__init__()
        a, b, c = COLOUR_WIDTHS
        plan = ((3, a, 1), (a, b, 2), (b, b, 1), (b, b, 1), (b, c, 2), (c, c, 1), (c, c, 1))
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=s, padding=1) for i, o, s in plan)
        self.head = nn.Linear(c, len(COLOUR_CLASSES))

    def features(self, x: Tensor) -> Tensor:
        """The 96 numbers before the last layer, (B, 96).

        Raises:
            Refused: images that are not (B, 3, 32, 32).
        """
        if x.ndim != 4 or x.shape[1:] != (3, COLOUR_SIDE, COLOUR_SIDE):
            raise Refused(f"the colour classifier reads RGB images of 32x32, (B, 3, 32, 32), got {tuple(x.shape)}")
        stem, half, a, b, quarter, c, d = self.convs
        h = torch.relu(half(torch.relu(stem(x.clamp(-1.0, 1.0)))))
        h = torch.relu(h + b(torch.relu(a(h))))
        h = torch.relu(quarter(h))
        h = torch.relu(h + d(torch.relu(c(h))))
        return h.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the ten classes of CIFAR-10 before the softmax, (B, 10)."""
        out: Tensor = self.head(self.features(x))
        return out


def load_colour_classifier(path: Path = COLOUR_WEIGHTS) -> ColourClassifier:
    """The classifier of colour pictures with its weights, ready for inference.

    Raises:
        OSError: no such file.
    """
    return _with_weights(ColourClassifier(), path)


def load_classifier(path: Path = WEIGHTS) -> DigitClassifier:
    """The classifier of digits with its weights, ready for inference.

    Raises:
        OSError: no such file.
    """
    return _with_weights(DigitClassifier(), path)


def _with_weights(network: N, path: Path) -> N:
    from safetensors.torch import load_file

    network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return network.eval().requires_grad_(False)
