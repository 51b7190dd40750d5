"""Time and memory against n and S: both should make time grow linearly and leave memory flat.

`python benchmarks/scaling.py [--quick]`: a tiny network, n = 64, 512, 4096 at S = 5, S = 5 to 1000 at n = 64.
"""

from __future__ import annotations

import argparse
import time

import torch
from common import rss, save, unet
from torch import nn

import ddim
from ddim import engine
from ddim.nets import DiffusersNetwork

BATCH = 64


def measure(network: nn.Module, n: int, steps: int) -> dict[str, float]:
    """Sample n images in batches, keeping none, as `ddim sample` does; seconds, and resident bytes after."""
    denoise = ddim.NetworkDenoiser(network, ddim.Schedule.linear(1000))
    times, begun = ddim.tau(1000, steps), time.perf_counter()
    for i in range(0, n, BATCH):
        ddim.sample(denoise, ddim.noise(range(i, min(i + BATCH, n)), (1, 8, 8)), times)
    seconds = time.perf_counter() - begun
    row = {
        "n": n,
        "S": steps,
        "seconds": seconds,
        "ms_an_image_and_step": 1e3 * seconds / n / steps,
        "rss_mib": rss() >> 20,
    }
    print(row, flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    network = engine.prepared(DiffusersNetwork(unet("digits", (1, 8, 8))), "fp32")
    with torch.no_grad():
        measure(network, BATCH, 5)  # warm
    rows = [measure(network, n, 5) for n in ((64, 512) if quick else (64, 512, 4096))]
    rows += [measure(network, BATCH, s) for s in ((10, 50) if quick else (10, 20, 50, 100, 200, 500, 1000))]
    save("scaling-quick" if quick else "scaling", {"network": "digits preset, 8x8 grey", "batch": BATCH, "rows": rows})


if __name__ == "__main__":
    main()
