"""Randomness as a parameter: the noise of image i is a function of (seed_i, purpose, step) alone.

Batch size, order, device, number of processes and a crash change nothing, because no generator lives
longer than one image's draw. The stream is Philox4x64 (counter based, NumPy) under a 128-bit key,
drawn on the CPU in float64 and then cast. torch's CPU generator is not used: it keeps only 32 bits of
its seed, so that among 50,000 hashed seeds two images would be expected to share their noise.
"""

from __future__ import annotations

import hashlib
import operator
import reprlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ddim.process.level import Time
from ddim.refused import Refused

X_T = "x_T"  # purposes in use; a new use of randomness takes a new name
STEP = "step"
DIGITS = 1000  # of a seed
MOST_SEEDS = 10**7  # of one list: as Python's whole numbers they take 400 MB


def generator(seed: int, purpose: str, step: Time = 0) -> np.random.Generator:
    """The NumPy generator of one (seed, purpose, step): the only source of randomness in this package."""
    try:
        whole = operator.index(seed)
    except TypeError:
        raise Refused(f"a seed must be a whole number >= 0, got {reprlib.repr(seed)}") from None
    if whole < 0:
        raise Refused(f"a seed must be a whole number >= 0, got {whole}")
    at = repr(float(step)) if isinstance(step, float) else int(step)  # NumPy floats say their type
    digest = hashlib.blake2b(f"{purpose}/{whole}/{at}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def noise(
    seeds: Sequence[int],
    shape: Sequence[int],
    *,
    purpose: str = X_T,
    step: Time = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noise, one row a seed: (len(seeds), *shape); row i depends on seeds[i] only.

    Args:
        seeds: whole numbers >= 0; row i is the same whatever the other rows are.
        shape: the shape of one row, e.g. (3, 32, 32).
        purpose: what the noise is for; different purposes are independent.
        step: the time t the noise belongs to, whole or real; different steps are independent.
        dtype, device: where the result goes; the draw itself is float64 on the CPU.

    Raises:
        Refused: a seed that is negative, or no whole number.
    """
    rows = [generator(seed, purpose, step).standard_normal(tuple(shape)) for seed in seeds]
    draw = np.stack(rows) if rows else np.empty((0, *shape))
    return torch.from_numpy(draw).to(dtype).to(device)


def parse_seeds(text: str, most: int | None = None) -> list[int]:
    """Seeds as people write them: "7", "1,2,5-10", "0-49999" (both ends in); so many at most, or MOST_SEEDS.

    Raises:
        Refused: not of that form, a falling range, a seed named twice, or more than MOST_SEEDS.
    """
    seeds: list[int] = []
    most = MOST_SEEDS if most is None else most
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()) or max(len(low), len(high)) > DIGITS:
            raise Refused(
                'seeds are written like "7", "1,2,5-10" or "0-49999"; '
                f"cannot read {reprlib.repr(part.strip())} in {reprlib.repr(text)}"
            )
        first, last = int(low), int(high if dash else low)
        if last < first:
            raise Refused(f"the seed range {part.strip()!r} runs backwards: {first} is above {last}")
        if len(seeds) + last - first + 1 > most:
            raise Refused(f"more than {most} seeds at once in {reprlib.repr(text)}; divide them among several jobs")
        seeds.extend(range(first, last + 1))
    if len(set(seeds)) != len(seeds):
        raise Refused(f"a seed is named twice in {reprlib.repr(text)}; every seed makes one image")
    return seeds
