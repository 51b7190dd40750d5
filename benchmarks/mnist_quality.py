"""How good the bundled MNIST model is: an independent classifier reads 1000 images, 100 of each class.

    .venv/bin/python benchmarks/mnist_quality.py [--model mnist] [--steps 20] [--eta 0] [--per-class 100] [--test FILE]

--test names mnist-test.parquet, to state the classifier's own accuracy in the same run.
"""

from __future__ import annotations

import argparse
import time

import torch

from ddim.metrics.classifier import load_classifier
from ddim.model import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mnist")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eta", type=float, default=0.0)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--test", help="mnist-test.parquet")
    options = parser.parse_args()
    classifier, model = load_classifier(), load(options.model)
    if options.test:
        from ddim.data import open_images
        from ddim.pixels import from_uint8

        images = open_images(options.test)
        with torch.no_grad():
            read = classifier.logits(from_uint8(images.pixels[:])).argmax(1)
        right = (read == torch.as_tensor(images.labels)).float().mean()
        print(f"classifier on {len(read)} real test images: {float(right):.2%}")
    n = 10 * options.per_class
    asked = torch.arange(n) % 10
    start = time.perf_counter()
    x = model.sample(
        n, steps=options.steps, eta=options.eta, label=asked, guidance=options.guidance, precision=options.precision
    )
    seconds = time.perf_counter() - start
    with torch.no_grad():
        read = classifier.logits(x).argmax(1)
    right = read == asked
    print(f"{options.model}: {n} images, {options.steps} steps, eta {options.eta:g}, guidance {options.guidance:g}, "
          f"seeds 0..{n - 1}, {seconds:.0f} s")  # fmt: skip
    print(f"read as asked: {float(right.float().mean()):.2%}")
    print("by class: " + "  ".join(f"{k}: {float(right[asked == k].float().mean()):.0%}" for k in range(10)))


if __name__ == "__main__":
    main()
