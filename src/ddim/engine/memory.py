"""How much memory a network call needs and how much there is: the batch size that fits.

On a CPU nothing counts memory, so the operators' own outputs are counted while one image runs; an accelerator
counts for itself, and a batch that does not fit after all is halved.
"""

from __future__ import annotations

import math
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ddim.refused import Refused

SHARE = 0.6  # of the memory that is free: the rest is for scratch space of kernels and for everybody else
LARGEST = 256  # beyond it a call only takes longer: throughput has been flat since well below

Call = Callable[[int], object]
"""Run the network once on that many images."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Counts the bytes of tensors made inside that are alive, and their peak; weights made before do not count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, Tensor) and made.layout is torch.strided:
                self._count(made)
        return out

    def _count(self, made: Tensor) -> None:
        storage = made.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:  # a view
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def available_bytes(device: torch.device) -> int | None:
    """Free memory of that device, None where nobody tells; on a CPU within the container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = [n for n in (_meminfo(), _container()) if n is not None]
    if found:
        return min(found)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2 if hasattr(os, "sysconf") else None


def _meminfo() -> int | None:
    path = Path("/proc/meminfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _container(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    limit, used = root / "memory.max", root / "memory.current"
    if not (limit.exists() and used.exists()) or limit.read_text().strip() == "max":
        return None
    return max(0, int(limit.read_text()) - int(used.read_text()))


def call_bytes(call: Call, rows: int, device: torch.device) -> int:
    """Peak bytes that one network call on that many images needs beyond what is there already."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call(rows)
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device)) - before
    with LiveBytes() as live:
        call(rows)
    return int(live.peak)


def fitting_batch(call: Call, device: torch.device, *, largest: int = LARGEST, free: int | None = None) -> int:
    """The largest power of two of images a call, up to `largest`, whose memory stays within 60 % of what is free.

    bytes(B) = fixed + B * each, from calls on 1 and 2 images. On an accelerator the result is then tried, and
    halved while it does not fit.

    Args:
        call: see `Call`; called two times, on an accelerator a few more.
        free: bytes there are, instead of asking.

    Raises:
        Refused: not even one image fits, with both numbers; largest below 1.
    """
    if largest < 1:
        raise Refused(f"the largest batch must be at least 1, got {largest}")
    free = available_bytes(device) if free is None else free
    if free is None:
        return 1 << int(math.log2(min(largest, 16)))
    one, two = call_bytes(call, 1, device), call_bytes(call, 2, device)
    each = max(two - one, 1)
    fits = int((SHARE * free - (one - each)) / each)
    if fits < 1:
        raise Refused(f"one image needs {one / 2**20:.0f} MiB and {SHARE * free / 2**20:.0f} MiB may be used")
    size = 1 << int(math.log2(min(fits, largest)))
    return _tried(call, size) if device.type != "cpu" else size


def _tried(call: Call, size: int) -> int:
    while size > 1:
        try:
            call(size)
        except torch.OutOfMemoryError:
            torch.accelerator.empty_cache()
            size //= 2
        else:
            break
    return size
