"""Are latents standard normal? The five numbers that tell, with what chance alone would allow.

Images that a model knows should encode to N(0, I). The published inversion does not: it asks the network at
the wrong end of each step, so its latents are biased even where its round trip looks good. Read this beside
the PSNR, never the PSNR alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddim.process import as_rows
from ddim.refused import Refused


@dataclass(frozen=True)
class Law:
    """Statistics of latents (B, *), pooled over images and elements; N(0, I) has those in brackets.

    Attributes:
        count: elements pooled.
        mean: [0], standard error 1/sqrt(count).
        variance: [1], standard error sqrt(2/count).
        norm: mean of |z|/sqrt(d) over the images [1].
        kurtosis: excess kurtosis [0], standard error sqrt(24/count).
        correlation: between neighbours along the last two dimensions [0], standard error near 1/sqrt(2 count);
            nan for items of fewer than two dimensions.
    """

    count: int
    mean: float
    variance: float
    norm: float
    kurtosis: float
    correlation: float

    def row(self) -> list[str]:
        """The five numbers as a table shows them."""
        values = (self.mean, self.variance, self.norm, self.kurtosis, self.correlation)
        return [f"{v:+.4f}" if i in (0, 3, 4) else f"{v:.4f}" for i, v in enumerate(values)]

    def deviations(self) -> dict[str, float]:
        """How many standard errors mean, variance, kurtosis and correlation are from those of N(0, I)."""
        n = self.count
        return {
            "mean": self.mean * math.sqrt(n),
            "variance": (self.variance - 1.0) * math.sqrt(n / 2.0),
            "kurtosis": self.kurtosis * math.sqrt(n / 24.0),
            "correlation": self.correlation * math.sqrt(2.0 * n),
        }


HEAD = ("mean", "variance", "norm", "kurtosis", "neighbours")


def law(z: Tensor, std: float = 1.0) -> Law:
    """The statistics of latents z (B, *), or of z/std; correlation takes the last two dimensions as the plane.

    std: of the noise that sampling starts from, `process.start(tau[0])`, where that is not 1.

    Raises:
        Refused: no latents.
    """
    values = torch.as_tensor(z).detach().cpu().double() / std
    if values.numel() == 0:
        raise Refused("there are no latents to measure")
    flat = as_rows(values)
    mean = float(flat.mean())
    variance = float((flat - mean).square().mean())
    fourth = float((flat - mean).pow(4).mean())
    return Law(
        flat.numel(),
        mean,
        variance,
        float(flat.norm(dim=1).mean()) / math.sqrt(flat.shape[1]),
        fourth / variance**2 - 3.0 if variance > 0 else math.nan,
        _neighbours(values - mean, variance),
    )


def _neighbours(centred: Tensor, variance: float) -> float:
    """Mean product of neighbours, across and down, over the variance."""
    if centred.ndim < 3 or min(centred.shape[-2:]) < 2 or variance == 0:
        return math.nan
    across = (centred[..., :, 1:] * centred[..., :, :-1]).flatten()
    down = (centred[..., 1:, :] * centred[..., :-1, :]).flatten()
    return float(torch.cat([across, down]).mean()) / variance
