"""What the benchmarks share: the network, alternating runs, medians, the machine, and results as JSON."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision_ops  # noqa: F401 -- before diffusers and the peers, which import torchvision where they find it
from torch import nn
from tqdm import tqdm

RESULTS = Path(__file__).parent / "results"
QUICK = Path(__file__).parent.parent / "out" / "benchmarks"  # proofs that a script works, never results
PACKAGES = ("ddim", "torch", "diffusers", "accelerate", "denoising-diffusion-pytorch", "azula", "k-diffusion", "numpy")
NETWORK = "cifar10 preset, 35.7M, random weights, seed 0"


def _without_bar(self: Any, *args: Any, _made: Any = tqdm.__init__, **kwargs: Any) -> None:
    _made(self, *args, **{**kwargs, "disable": True})


tqdm.__init__ = _without_bar  # the peers' own bars: some have no switch, and all measure without


def parser(doc: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help=f"smallest sizes; the result goes to {QUICK.name} in out/")
    made.add_argument("--threads", type=int, default=None, help="torch's threads; default all cores")
    return made


def options(made: argparse.ArgumentParser) -> argparse.Namespace:
    found = made.parse_args()
    if found.threads:
        torch.set_num_threads(found.threads)
    return found


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
        print(f"  {i + 1}/{repeats}: " + ", ".join(f"{k} {v[-1]:.2f} s" for k, v in seconds.items()), flush=True)
    return seconds


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def ratios(of: list[float], to: list[float]) -> dict[str, float]:
    """How many times faster `to` is than `of`, pair by pair: each pair ran side by side."""
    return spread([a / b for a, b in zip(of, to, strict=True)])


@contextmanager
def counted(module: nn.Module) -> Iterator[list[int]]:
    """Inside, the batch size of every call of that module is appended to the list."""
    sizes: list[int] = []
    handle = module.register_forward_hook(lambda _module, inputs, _output: sizes.append(len(inputs[0])))
    try:
        yield sizes
    finally:
        handle.remove()


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _busy() -> tuple[float, float, float]:
    """Now; the CPU seconds the machine has spent at work; those of this process and its finished children."""
    first = next(iter(_lines("/proc/stat")), "")
    ticks = [int(v) for v in first.split()[1:9]] or [0] * 8  # user nice system idle iowait irq softirq steal
    return time.perf_counter(), (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])


_BEGUN = _busy()


def others() -> float:
    """Cores that anything but this process kept busy since this module was imported, on average."""
    now = _busy()
    return max(0.0, (now[1] - _BEGUN[1] - (now[2] - _BEGUN[2])) / max(now[0] - _BEGUN[0], 1e-9))


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
        "cores_busy_with_others": round(others(), 2),
        "seconds": round(time.perf_counter() - _BEGUN[0], 1),
        "python": platform.python_version(),
        "versions": found,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def folder(quick: bool) -> Path:
    return QUICK if quick else RESULTS


def save(name: str, result: dict[str, Any], quick: bool = False) -> Path:
    """results/NAME.json, whole or not at all; a benchmark that is run again replaces its own result."""
    folder(quick).mkdir(parents=True, exist_ok=True)
    path = folder(quick) / f"{name}.json"
    part = path.with_suffix(".part")
    made = machine()
    part.write_text(json.dumps({"benchmark": name, "quick": quick, "machine": made, **result}, indent=1) + "\n")
    part.replace(path)
    print(f"-> {path} ({made['seconds']:.0f} s, {made['cores_busy_with_others']} cores busy with others)", flush=True)
    return path


def rss() -> int:
    """Resident bytes of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
