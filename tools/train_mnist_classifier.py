"""Train the bundled digit classifier: python tools/train_mnist_classifier.py TRAIN TEST OUT [--epochs 8].

One thread, some ten minutes. Adam under one cycle, random rotations, scales, shears and shifts, batch
normalisation folded into the convolutions at the end. Prints the accuracy on TEST after every epoch and
writes float16 weights (read back as float32).
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ddim.data import open_images
from ddim.metrics.classifier import CHANNELS, CLASSES, DigitClassifier, load_classifier
from ddim.nets import torch_randomness
from ddim.pixels import from_uint8
from ddim.process import generator

BATCH = 250


class Trained(nn.Module):
    """The classifier as it is trained: with batch normalisation after every convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(i, o, 3, stride=s, padding=1, bias=False) for i, o, s in CHANNELS)
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _ in CHANNELS)
        self.head = nn.Linear(CHANNELS[-1][1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = (x + 1.0) / 2.0
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = torch.relu(norm(conv(h)))
        return self.head(h.mean((2, 3)))

    def folded(self) -> DigitClassifier:
        out = DigitClassifier()
        for conv, norm, target in zip(self.convs, self.norms, out.convs, strict=True):
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            target.weight.data = conv.weight.data * scale.data[:, None, None, None]
            target.bias.data = (norm.bias - norm.running_mean * scale).data
        out.head.load_state_dict(self.head.state_dict())
        return out.eval()


def augmented(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image under its own small affine map: rotation 12 degrees, scale 10 %, shear 0.15, shift 2 pixels."""
    u = rng.uniform(-1, 1, (6, len(x)))
    angle, shear = u[0] * math.radians(12), u[1] * 0.15
    sx, sy = 1 + 0.1 * u[2], 1 + 0.1 * u[3]
    rows = np.stack([
        np.stack([sx * np.cos(angle), -sy * np.sin(angle) + shear, u[4] * 2 / 14], 1),
        np.stack([sx * np.sin(angle), sy * np.cos(angle), u[5] * 2 / 14], 1),
    ], 1)  # fmt: skip
    grid = functional.affine_grid(torch.from_numpy(rows).float(), list(x.shape), align_corners=False)
    return functional.grid_sample(x + 1.0, grid, align_corners=False) - 1.0  # outside the picture is black


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, label: Tensor) -> float:
    return sum(
        int((network(a).argmax(1) == b).sum()) for a, b in zip(x.split(500), label.split(500), strict=True)
    ) / len(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (open_images(p, channels=1) for p in (args.train, args.test))
    x, label = from_uint8(np.array(train.pixels)), torch.from_numpy(train.labels)
    x_test, label_test = from_uint8(np.array(test.pixels)), torch.from_numpy(test.labels)
    with torch_randomness(args.seed, "classifier weights"):
        network = Trained()
    steps = args.epochs * (len(x) // BATCH)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=1e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for epoch in range(args.epochs):
        network.train()
        order = torch.from_numpy(generator(args.seed, "classifier order", epoch).permutation(len(x)))
        rng = generator(args.seed, "classifier augmentation", epoch)
        for index in order[: len(x) // BATCH * BATCH].split(BATCH):
            loss = functional.cross_entropy(network(augmented(x[index], rng)), label[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
        network.eval()
        print(
            f"epoch {epoch + 1}: loss {loss.item():.4f}, test accuracy {accuracy(network, x_test, label_test):.4f}",
            flush=True,
        )
        save_file({k: v.half().contiguous() for k, v in network.folded().state_dict().items()}, args.out)
    print(f"as stored: test accuracy {accuracy(load_classifier(args.out), x_test, label_test):.4f}")


if __name__ == "__main__":
    main()
