"""What training minimises: the target of a parameterisation, weighted by t.

All weights are of the x0 error seen through the parameterisation's own loss: weight 1 on the eps loss is
"L_simple" of DDPM (arXiv 2006.11239, eq. 14).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ddim.process.level import AnyLevel, Level, Process, as_rows
from ddim.process.prediction import Parameterisation, parameterisation, square_sum
from ddim.refused import Refused


@dataclass(frozen=True)
class Objective:
    """Mean squared error of a prediction, optionally with min-SNR weights.

    A score is weighted by noise^2, so that its loss is that of eps (arXiv 2011.13456, eq. 7 with lambda = noise^2).

    Args:
        prediction: a name of `PARAMETERISATIONS`; weights by min-SNR are of "eps", "x0" and "v".
        min_snr_gamma: gamma of Hang et al. (arXiv 2303.09556), usually 5: the x0 error is weighted by
            min(SNR, gamma), so the loss on eps by min(SNR, gamma)/SNR, on v by min(SNR, gamma)/(SNR + 1), and where
            signal^2 + noise^2 = n is not 1, by that over n. None weights every t by 1.
        data_std, unit_input: see `parameterisation`.

    Raises:
        Refused: an unknown prediction, or gamma not above 0, or infinite.
    """

    prediction: str = "eps"
    min_snr_gamma: float | None = None
    data_std: float = 0.5
    unit_input: bool = False

    def __post_init__(self) -> None:
        parameterisation(self.prediction, data_std=self.data_std, unit_input=self.unit_input)
        if self.min_snr_gamma is not None and not 0 < self.min_snr_gamma < math.inf:
            raise Refused(f"min_snr_gamma must be a number above 0, got {self.min_snr_gamma}")
        if self.min_snr_gamma is not None and self.prediction not in ("eps", "x0", "v"):
            raise Refused(f"min-SNR weights are of the predictions eps, x0 and v, not of {self.prediction!r}")

    @property
    def parameterisation(self) -> Parameterisation:
        return parameterisation(self.prediction, data_std=self.data_std, unit_input=self.unit_input)

    def weight(self, level: AnyLevel) -> Tensor:
        """The weight of the squared error of this prediction at these levels, shaped as the levels are."""
        signal2 = torch.as_tensor(level.signal, dtype=torch.float64) ** 2
        if self.min_snr_gamma is None and self.prediction != "score":
            return torch.ones_like(signal2)
        noise2 = torch.as_tensor(level.noise, dtype=torch.float64) ** 2
        if self.min_snr_gamma is None:
            return noise2
        # written with signal2 and noise2 so that SNR = 0 (zero terminal SNR) divides by nothing
        capped = torch.minimum(signal2, self.min_snr_gamma * noise2)  # min(SNR, gamma) * noise2
        n = torch.as_tensor(square_sum(level), dtype=torch.float64)
        return capped / {"x0": noise2, "eps": signal2, "v": n if self.unit_input else n**2}[self.prediction]

    def losses(self, out: Tensor, x0: Tensor, eps: Tensor, t: Tensor, process: Process) -> Tensor:
        """The weighted squared error of each image, averaged over its elements; float32 (B,).

        Args:
            out: the network's output at x_t = signal x0 + noise eps, (B, *).
            x0, eps: the clean images and the noise, (B, *).
            t: times (B,), each above 0.
        """
        level: Level[Tensor] = process.at_batch(t, x0)
        error = as_rows(out.float() - self.parameterisation.target(x0, eps, level).float()).square().mean(1)
        return error * self.weight(level).flatten().to(error)


def diffuse(x0: Tensor, eps: Tensor, t: Tensor, process: Process) -> Tensor:
    """x_t = signal x0 + noise eps (DDPM eq. 4); all (B, *), t (B,)."""
    level = process.at_batch(t, x0)
    return level.signal * x0 + level.noise * eps
