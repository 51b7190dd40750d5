"""How latents were made, and what was measured of every image."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ddim.process import as_rows


@dataclass(frozen=True)
class Road:
    """Falling times a latent was solved on; `start`: the last of them, where the image was noised to it."""

    tau: tuple[Any, ...]
    start: Any | None = None


@dataclass(frozen=True)
class LatentRecipe:
    """What must be the same when decoding, for decode to return the image.

    Attributes:
        tau: the times asked for, falling.
        method: "naive", "implicit", "bdia" or "exact".
        model: digest of the schedule and of the network's weights.
        conditions: label, guidance and the like, as JSON values.
        gamma: of the coupled scheme.
        tolerance: of the implicit solve.
        roads: those that the certificate's `road` counts: the first is tau, or tau down to the level the images were
            noised to; then finer ones of as many steps.
    """

    tau: tuple[Any, ...]
    method: str
    model: str
    conditions: dict[str, Any]
    gamma: float
    tolerance: float
    roads: tuple[Road, ...]

    def differences(self, tau: Sequence[Any], model: str, conditions: dict[str, Any]) -> list[str]:
        """What another recipe changes, in words; empty when it decodes what this one encoded."""
        found = []
        if tuple(tau) != self.tau:
            found.append(f"tau has {len(tau) - 1} steps from {tau[0]}, not {len(self.tau) - 1} from {self.tau[0]}")
            if len(tau) == len(self.tau):
                at = next(i for i, (a, b) in enumerate(zip(tau, self.tau, strict=True)) if a != b)
                found[-1] = f"tau visits {tau[at]} where encoding visited {self.tau[at]}"
        if model != self.model:
            found.append("another network or schedule")
        for name in sorted({*conditions, *self.conditions}):
            if conditions.get(name) != self.conditions.get(name):
                was, now = self.conditions.get(name), conditions.get(name)
                found.append(f"{name} {_short(now)} instead of {_short(was)}")
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Certificate:
    """What was measured on every image; all (B,) on the CPU.

    Attributes:
        residual: worst |x_t - DDIM's step from x_s| over the steps, float64; nan where nothing was solved.
        psnr: of decode(encode(x)) against x, in dB, peak to peak 2, float64; inf when equal.
        max_error: the largest |decode(encode(x)) - x|, float64.
        nfe: network rows that encoding spent, int64 (the decoding that measures psnr costs S more a road tried).
        road: which of the recipe's roads its one state was solved on, int64; -1 where there are two states (`bdia`).
    """

    residual: Tensor
    psnr: Tensor
    max_error: Tensor
    nfe: Tensor
    road: Tensor

    def scaled(self, unit: float) -> Certificate:
        """The same errors in units 1 / `unit` as large."""
        psnr = self.psnr - 20.0 * math.log10(unit)
        return replace(self, psnr=psnr, max_error=self.max_error * unit)

    def __repr__(self) -> str:
        if not len(self.psnr):
            return "no images"
        solved = self.residual[~self.residual.isnan()]
        worst = f"{float(solved.max()):.1e}" if len(solved) else "none"
        back = float(self.psnr.min())
        return (
            f"{len(self.psnr)} images: round trip {'bit for bit' if back == math.inf else f'at least {back:.1f} dB'}, "
            f"largest error {float(self.max_error.max()):.1e}, worst residual {worst}, "
            f"{float(self.nfe.double().mean()):.1f} NFE an image; {self._roads()}"
        )

    def _roads(self) -> str:
        asked, coupled = int((self.road == 0).sum()), int((self.road < 0).sum())
        finer = len(self.road) - asked - coupled
        parts = {"one state on the times asked for": asked, "one state on finer times": finer, "two states": coupled}
        return ", ".join(f"{name} {count}" for name, count in parts.items() if count)


@dataclass(frozen=True, eq=False, repr=False)
class Reproduction:
    """What the autoencoder alone leaves of every picture, whatever is done to its latents; (B,) on the CPU, float64.

    Attributes:
        psnr: of its reconstruction against the picture, in dB, peak to peak 2; inf when equal.
        max_error: the largest difference.
    """

    psnr: Tensor
    max_error: Tensor

    @classmethod
    def of(cls, back: Tensor, x: Tensor) -> Reproduction:
        """Of the reconstructions of pictures x (B, C, H, W) in [-1, 1]."""
        return cls(*compared(back, x).unbind(1))

    def __repr__(self) -> str:
        if not len(self.psnr):
            return "no images"
        return (
            f"{len(self.psnr)} images: round trip {float(self.psnr.mean()):.1f} dB on average, at least "
            f"{float(self.psnr.min()):.1f} dB, largest error {float(self.max_error.max()):.1e}"
        )


def compared(y: Tensor, x: Tensor) -> Tensor:
    """PSNR in dB (peak to peak 2) and largest error of every image, (B, 2), float64 on the CPU."""
    error = as_rows(y.double() - x.double())
    psnr = 10.0 * torch.log10(4.0 / error.square().mean(1))
    return torch.stack([psnr, error.abs().amax(1)], 1).cpu()


def _short(value: Any) -> str:
    text = "none" if value is None else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
