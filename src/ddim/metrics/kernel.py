"""Kernel Inception Distance (Binkowski et al., arXiv 1801.01401): unbiased at any n, unlike the Frechet distance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ddim.process import generator
from ddim.refused import Refused


class Estimate(NamedTuple):
    """A mean over subsets or splits, and the standard deviation among them."""

    mean: float
    std: float


def mmd2(x: Tensor, y: Tensor) -> float:
    """Unbiased squared MMD of features x (n, D), y (m, D) under the kernel (x.y/D + 1)^3, float64.

    Raises:
        Refused: fewer than 2 rows in either set.
    """
    if min(len(x), len(y)) < 2:
        raise Refused(f"KID needs at least 2 images in each set, got {len(x)} and {len(y)}")
    x, y = x.double(), y.double()
    xx, yy, xy = (_kernel(a, b) for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    within = (xx.sum() - xx.diagonal().sum()) / (n * (n - 1)) + (yy.sum() - yy.diagonal().sum()) / (m * (m - 1))
    return float(within - 2.0 * xy.mean())


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1.0) ** 3


def kid(x: Tensor, y: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0) -> Estimate:
    """Mean and spread of `mmd2` over random subsets of both sets; size is lowered to the smaller set.

    Raises:
        Refused: see `mmd2`; no subsets.
    """
    if subsets < 1:
        raise Refused(f"KID needs at least 1 subset, got {subsets}")
    size = min(size, len(x), len(y))
    values = []
    for i in range(subsets):
        rng = generator(seed, "kid", i)
        own, other = (torch.from_numpy(rng.choice(len(s), size, replace=False)) for s in (x, y))
        values.append(mmd2(x[own], y[other]))
    spread = torch.tensor(values, dtype=torch.float64)
    return Estimate(float(spread.mean()), float(spread.std(unbiased=False)))
