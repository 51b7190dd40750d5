"""Time and memory against n and S: time should grow linearly with both, memory should not grow at all.

A tiny network, so that the loop around it counts: n = 64, 512, 4096 at S = 5, and S = 5 to 1000 at n = 64, three
times each, in batches of 64 that are thrown away as `ddim sample` writes them away. Each table is fitted by
seconds = a + b n (or b S), a the fixed cost; the largest departure from that line says how linear it is.
`python benchmarks/scaling.py [--quick]`
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from common import options, parser, rss, save, spread, unet
from torch import nn

import ddim
from ddim import engine
from ddim.nets import DiffusersNetwork

BATCH, SHAPE = 64, (1, 8, 8)


def seconds(network: nn.Module, n: int, steps: int) -> float:
    """Sample n images in batches, keeping none."""
    denoise = ddim.NetworkDenoiser(network, ddim.Schedule.linear(1000))
    times, begun = ddim.tau(1000, steps), time.perf_counter()
    for i in range(0, n, BATCH):
        ddim.sample(denoise, ddim.noise(range(i, min(i + BATCH, n)), SHAPE), times)
    return time.perf_counter() - begun


def measure(network: nn.Module, n: int, steps: int, repeats: int) -> dict[str, Any]:
    taken = spread([seconds(network, n, steps) for _ in range(repeats)])
    row = {
        "n": n,
        "S": steps,
        "seconds": taken,
        "us_an_image_and_step": 1e6 * taken["median"] / n / steps,
        "rss_mib": rss() / 2**20,
    }
    print(f"n {n:5} S {steps:5}: {taken['median']:8.3f} s, {row['us_an_image_and_step']:6.1f} us an image and step, "
          f"{row['rss_mib']:.0f} MiB", flush=True)  # fmt: skip
    return row


def line(rows: list[dict[str, Any]], x: str) -> dict[str, float]:
    """seconds = fixed + each x, least squares of the relative error; the largest relative departure from it."""
    xs, ys = np.array([float(r[x]) for r in rows]), np.array([r["seconds"]["median"] for r in rows])
    fixed, each = np.linalg.lstsq(np.stack([1 / ys, xs / ys], 1), np.ones_like(ys), rcond=None)[0]
    return {
        "fixed_seconds": float(fixed),
        f"seconds_a_{x}": float(each),
        "largest_departure": float(np.abs((fixed + each * xs) / ys - 1).max()),
        "rss_growth_mib": rows[-1]["rss_mib"] - rows[0]["rss_mib"],
    }


def main() -> None:
    args = options(parser(__doc__))
    network = engine.prepared(DiffusersNetwork(unet("digits", SHAPE)), "fp32")
    repeats = 1 if args.quick else 3
    with torch.no_grad():
        measure(network, BATCH, 5, 1)  # warm
        by_n = [measure(network, n, 5, repeats) for n in ((64, 128) if args.quick else (64, 512, 4096))]
        steps = (5, 10) if args.quick else (5, 10, 20, 50, 100, 200, 500, 1000)
        by_s = [measure(network, BATCH, s, repeats) for s in steps]
    fits = {"n": line(by_n, "n"), "S": line(by_s, "S")}
    for x, fit in fits.items():
        print(f"against {x}: within {100 * fit['largest_departure']:.1f} % of a straight line, memory grew by "
              f"{fit['rss_growth_mib']:.1f} MiB from the smallest to the largest")  # fmt: skip
    result = {"network": "digits preset, 8x8 grey, seed 0", "seeds": "0..n-1", "batch": BATCH}
    save("scaling", {**result, "by_n": by_n, "by_S": by_s, "fits": fits}, args.quick)


if __name__ == "__main__":
    main()
