"""What the benchmarks share: the network, alternating runs, medians, the machine, and results as JSON."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ddim", "torch", "diffusers", "accelerate", "denoising-diffusion-pytorch", "azula", "k-diffusion", "numpy")


def unet(preset: str = "cifar10", shape: tuple[int, int, int] = (3, 32, 32), seed: int = 0) -> nn.Module:
    """The network of a preset with random weights, the output layer included; "cifar10" is Ho et al.'s 35.7M."""
    from ddim.nets import build

    return build(preset, shape=shape, seed=seed).eval()


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def alternate(runs: dict[str, Callable[[], Any]], repeats: int, warm: int = 1) -> dict[str, list[float]]:
    """Seconds of each run, taken in turns so that a busy minute meets all of them; the order rotates."""
    for run in runs.values():
        for _ in range(warm):
            run()
    names, seconds = list(runs), {name: [] for name in runs}
    for i in range(repeats):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            synchronise()
            begun = time.perf_counter()
            runs[name]()
            synchronise()
            seconds[name].append(time.perf_counter() - begun)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def ratios(of: list[float], to: list[float]) -> dict[str, float]:
    """How many times faster `to` is than `of`, pair by pair: each pair ran side by side."""
    return spread([a / b for a, b in zip(of, to, strict=True)])


def machine() -> dict[str, Any]:
    model = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": model or platform.processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "capabilities": sorted(k for k, v in torch.cpu.get_capabilities().items() if v is True),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "versions": found,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def save(name: str, result: dict[str, Any]) -> Path:
    """results/NAME.json, whole or not at all; a benchmark that is run again replaces its own result."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"benchmark": name, "machine": machine(), **result}, indent=1) + "\n")
    part.replace(path)
    print(f"-> {path}", flush=True)
    return path


def rss() -> int:
    """Resident bytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
