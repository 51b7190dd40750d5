"""Precision and recall, density and coverage: is each image near real ones, is each real one near images?

All four come from balls around items that reach to their k-th nearest neighbour in the same set. Distances
are computed block by block, so memory stays at block x n.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ddim.refused import Refused

BLOCK = 1024


class Fidelity(NamedTuple):
    """Precision and density ask about the generated images, recall and coverage about the real ones."""

    precision: float
    recall: float
    density: float
    coverage: float


def radii(x: Tensor, k: int) -> Tensor:
    """Distance of each row of x (n, D) to its k-th nearest other row; (n,).

    Raises:
        Refused: k not below n.
    """
    if not 1 <= k < len(x):
        raise Refused(f"k = {k} nearest neighbours need more than {k} images, got {len(x)}")
    return torch.cat([_distances(block, x).kthvalue(k + 1, dim=1).values for block in torch.split(x, BLOCK)])


def fidelity(real: Tensor, fake: Tensor, *, k: int = 3, density_k: int = 5) -> Fidelity:
    """Precision and recall (Kynkaanniemi et al., arXiv 1904.06991, eq. 1-2), density and coverage (Naeem et al.,
    arXiv 2002.09797, eq. 3-4).

    Args:
        real, fake: features (n, D) and (m, D).
        k, density_k: nearest neighbours of the first and the second pair of measures; the papers' 3 and 5.

    Raises:
        Refused: too few images for k.
    """
    real, fake = real.double(), fake.double()
    real_k, fake_k, real_dense = radii(real, k), radii(fake, k), radii(real, density_k)
    precise, inside, recalled = [], 0, torch.zeros(len(real), dtype=torch.bool)
    nearest = torch.full((len(real),), torch.inf, dtype=torch.float64)
    for rows in torch.split(torch.arange(len(fake)), BLOCK):
        d = _distances(fake[rows], real)
        precise.append((d <= real_k).any(1))
        recalled |= (d <= fake_k[rows, None]).any(0)
        inside += int((d <= real_dense).sum())
        nearest = torch.minimum(nearest, d.min(0).values)
    return Fidelity(
        precision=float(torch.cat(precise).double().mean()),
        recall=float(recalled.double().mean()),
        density=inside / (density_k * len(fake)),
        coverage=float((nearest <= real_dense).double().mean()),
    )


def diversity(x: Tensor) -> float:
    """Mean distance between two different rows of x (n, D).

    Raises:
        Refused: fewer than 2 rows.
    """
    n = len(x)
    if n < 2:
        raise Refused(f"diversity needs at least 2 images, got {n}")
    x = x.double()
    return sum(float(_distances(block, x).sum()) for block in torch.split(x, BLOCK)) / (n * (n - 1))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Exact differences, not a^2 + b^2 - 2ab: an item's distance to itself must be 0."""
    return torch.cdist(a.double(), b.double(), compute_mode="donot_use_mm_for_euclid_dist")
