"""Train the bundled classifier of colour pictures: python tools/train_cifar_classifier.py TRAIN TEST OUT.safetensors.

It stands in for Inception where that cannot be had: `ddim evaluate` compares its 96 features. Residual network, 0.3M
weights, bf16, mirrored and shifted images, Adam under one cycle. Prints the accuracy on TEST after every epoch; writes
float16 weights with batch normalisation folded into the convolutions (read back as float32), or, as OUT.pt2, an
ExportedProgram: images (B, 3, 32, 32) in [-1, 1] -> (features (B, 96), logits (B, 10)).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from ddim.data import open_images
from ddim.metrics.classifier import COLOUR_WIDTHS, ColourClassifier, load_colour_classifier
from ddim.nets import torch_randomness
from ddim.pixels import from_uint8
from ddim.process import generator

BATCH, SHIFT, RATE = 200, 3, 5e-3


def conv(i: int, o: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = conv(width, width), conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.b(torch.relu(self.a(x))))


class Classifier(nn.Module):
    """A stem at full size, then two levels of half the size each, with one residual block."""

    def __init__(self) -> None:
        super().__init__()
        a, b, c = COLOUR_WIDTHS
        self.body = nn.Sequential(
            conv(3, a), nn.ReLU(), conv(a, b, 2), nn.ReLU(), Residual(b), conv(b, c, 2), nn.ReLU(), Residual(c)
        )
        self.head = nn.Linear(c, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x).mean((2, 3))
        return features, self.head(features)


def augmented(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Each image mirrored or not, and moved by up to SHIFT pixels each way over its own mirrored edge."""
    big = functional.pad(x, [SHIFT] * 4, mode="reflect")
    flips, (down, right) = rng.random(len(x)) < 0.5, rng.integers(0, 2 * SHIFT + 1, (2, len(x)))
    rows = torch.from_numpy(down)[:, None] + torch.arange(x.shape[2])
    columns = torch.arange(x.shape[3]).expand(len(x), -1)
    columns = torch.where(torch.from_numpy(flips)[:, None], columns.flip(1), columns) + torch.from_numpy(right)[:, None]
    at = torch.arange(len(x))[:, None, None]
    return big.permute(0, 2, 3, 1)[at, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, label: Tensor) -> float:
    return sum(int((network(a)[1].argmax(1) == b).sum()) for a, b in parts_of(x, label)) / len(x)


def parts_of(x: Tensor, label: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(x.split(500), label.split(500), strict=True)


def folded(network: Classifier) -> ColourClassifier:
    """The same function in eval mode, without batch normalisation."""
    out = ColourClassifier()
    pairs = [m for m in network.modules() if isinstance(m, nn.Sequential) and isinstance(m[-1], nn.BatchNorm2d)]
    for (conv, norm), target in zip(pairs, out.convs, strict=True):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        target.weight.data = (conv.weight * scale[:, None, None, None]).data
        target.bias.data = (norm.bias - norm.running_mean * scale).data
    out.head.load_state_dict(network.head.state_dict())
    return out.eval()


def keep(path: Path, epochs: int, *parts: Any) -> None:
    part = path.with_name(f".{path.name}.part")
    torch.save({"epochs": epochs, "parts": [p.state_dict() for p in parts]}, part)
    part.replace(path)


def resumed(path: Path | None, *parts: Any) -> int:
    """Brings back what `keep` left, and says how many epochs are behind it."""
    if path is None or not path.exists():
        return 0
    kept = torch.load(path, weights_only=True)
    for part, state in zip(parts, kept["parts"], strict=True):
        part.load_state_dict(state)
    return int(kept["epochs"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=None, help="so many training images only")
    parser.add_argument("--state", type=Path, default=None, help="kept after every epoch; a run that finds it goes on")
    args = parser.parse_args()
    train, test = (open_images(p) for p in (args.train, args.test))
    pixels, label = np.array(train.pixels[: args.limit]), torch.from_numpy(train.labels[: args.limit])
    x_test, label_test = from_uint8(np.array(test.pixels)), torch.from_numpy(test.labels)
    with torch_randomness(args.seed, "classifier weights"):
        network = Classifier()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=2e-2)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=RATE, total_steps=args.epochs * (len(pixels) // BATCH)
    )
    first = resumed(args.state, network, optimizer, cycle)
    for epoch in range(first, args.epochs):
        network.train()
        begun = time.perf_counter()
        order = generator(args.seed, "classifier order", epoch).permutation(len(pixels))
        rng = generator(args.seed, "classifier augmentation", epoch)
        for i in range(0, len(order) // BATCH * BATCH, BATCH):
            index = order[i : i + BATCH]
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(augmented(from_uint8(pixels[index]), rng))[1]
            loss = functional.cross_entropy(logits.float(), label[index], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
        if args.state:
            keep(args.state, epoch + 1, network, optimizer, cycle)
        network.eval()
        print(f"epoch {epoch + 1}: loss {loss.item():.4f}, test accuracy {accuracy(network, x_test, label_test):.4f}, "
              f"{time.perf_counter() - begun:.0f} s", flush=True)  # fmt: skip
    if args.out.suffix == ".safetensors":
        save_file({k: v.half().contiguous() for k, v in folded(network).state_dict().items()}, args.out)
        small = load_colour_classifier(args.out)
        right = sum(int((small(a).argmax(1) == b).sum()) for a, b in parts_of(x_test, label_test))
        print(f"{args.out}: as stored, test accuracy {right / len(x_test):.4f}")
        return
    batch = {0: torch.export.Dim.DYNAMIC}
    # a clone: the file keeps the example, and of a view all that it looks into
    program = torch.export.export(network, (x_test[:4].clone(),), dynamic_shapes=(batch,))
    part = args.out.with_name(f".{args.out.name}.part.pt2")
    torch.export.save(program, part)
    part.replace(args.out)
    stored = torch.export.load(args.out).module()
    print(f"{args.out}: as stored, test accuracy {accuracy(stored, x_test, label_test):.4f}")


if __name__ == "__main__":
    main()
