"""Mean and covariance of features in float64, and the Frechet distance between two.

The distance is of Gaussians fitted to the features (Heusel et al., arXiv 1706.08500, eq. 6). It is called FID
only for the standard Inception network; on any other extractor it is "FD-<extractor>".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ddim.refused import Refused


@dataclass(frozen=True)
class Moments:
    """n items, their mean (D,) and scatter sum (f - mean)(f - mean)^T (D, D), float64 on the CPU."""

    n: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Moments of features (n, D).

        Raises:
            Refused: not (n, D), or a feature that is not finite.
        """
        if features.ndim != 2 or not len(features):
            raise Refused(f"features must be (n, D) with n >= 1, got {tuple(features.shape)}")
        f = features.detach().to("cpu", torch.float64)
        if not bool(torch.isfinite(f).all()):
            bad = int((~torch.isfinite(f).all(1)).sum())
            raise Refused(f"{bad} of {len(f)} images have features that are not finite: are the images finite?")
        mean = f.mean(0)
        centred = f - mean
        return cls(len(f), mean, centred.T @ centred)

    @property
    def covariance(self) -> Tensor:
        """scatter / (n - 1), (D, D), as every FID program has it.

        Raises:
            Refused: fewer than two items.
        """
        if self.n < 2:
            raise Refused(f"a covariance needs at least 2 images, got {self.n}")
        return self.scatter / (self.n - 1)


def frechet(a: Moments, b: Moments) -> float:
    """|mean_a - mean_b|^2 + Tr(C_a + C_b - 2 (C_a C_b)^(1/2)), never below 0.

    The last trace is the nuclear norm of C_a^(1/2) C_b^(1/2), which singular covariances (n < D) do not upset.

    Raises:
        Refused: features of different length.
    """
    if len(a.mean) != len(b.mean):
        raise Refused(f"features of {len(a.mean)} and {len(b.mean)} numbers cannot be compared")
    cross = torch.linalg.svdvals(_root(a.covariance) @ _root(b.covariance)).sum()
    apart = (a.mean - b.mean).square().sum()
    return max(0.0, float(apart + a.covariance.trace() + b.covariance.trace() - 2.0 * cross))


def _root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0.0).sqrt() @ vectors.T
    return root


def frechet_bias(covariance: Tensor, n: int, m: int | None = None) -> float:
    """What the Frechet distance between n and m draws of one Gaussian is expected to be; 0 would be the truth.

    (1/n + 1/m) (Tr C + 1/2 sum_ij l_i l_j (1 + d_ij)/(l_i + l_j)), l the eigenvalues of C: the second-order
    bias (docs/theory.md, "Finite n"), good while n is well above the number of features that vary.

    Args:
        m: the size of the other set; None means that its moments are exact.
    """
    values = torch.linalg.eigvalsh(covariance.double()).clamp(min=0.0)
    total = values[:, None] + values[None, :]
    pairs = values[:, None] * values[None, :] / torch.where(total > 0, total, torch.ones_like(total))
    rate = 1.0 / n + (1.0 / m if m else 0.0)
    return float(rate * (values.sum() + 0.5 * (pairs.sum() + pairs.diagonal().sum())))


def distance_name(extractor: str) -> str:
    """ "FID" for the standard Inception features, else "FD-<extractor>"."""
    return "FID" if extractor == "inception" else f"FD-{extractor}"
