"""The bundled classifier of handwritten digits: 64 features and 10 classes for 28x28 grey images.

It exists because the standard Inception network was never made for digits, and because its weights cannot
come with this package. How it was trained: `tools/train_mnist_classifier.py`, docs/evaluation.md.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ddim.refused import Refused

WEIGHTS = Path(__file__).parent.parent / "bundled" / "mnist-classifier.safetensors"
CHANNELS = ((1, 16, 1), (16, 32, 2), (32, 48, 1), (48, 64, 2), (64, 64, 1))  # in, out, stride of each convolution
SIDE, CLASSES = 28, 10


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


def load_classifier(path: Path = WEIGHTS) -> DigitClassifier:
    """The classifier with its weights, ready for inference.

    Raises:
        OSError: no such file.
    """
    from safetensors.torch import load_file

    network = DigitClassifier()
    network.load_state_dict({k: v.float() for k, v in load_file(path).items()})
    return network.eval().requires_grad_(False)
