"""The paper's Table 2 as rows: what encoding images in S steps and decoding them again leaves of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ddim.uses import HEAD, Latents, Law, law

COUPLED = (
    "coupled: a step of DDIM could not be solved backwards there, so the coupled scheme carried the image, which is as "
    "exact; its latent is two states"
)


@dataclass(frozen=True)
class Reconstruction:
    """One number of steps by one method, over all images; MSE per dimension on the [0, 1] scale, PSNR in dB.

    solved and coupled are shares of the images: whose steps were inverted, and which the coupled scheme carried.
    """

    HEAD: ClassVar[tuple[str, ...]] = ("S", "method", "MSE [0,1]", "PSNR mean", "PSNR min", "solved", "NFE", *HEAD)
    FILE_HEAD: ClassVar[tuple[str, ...]] = (*HEAD, "coupled")

    steps: int
    method: str
    mse: float
    psnr: float
    worst: float
    solved: float
    nfe: float
    law: Law
    coupled: float

    def cells(self) -> list[str]:
        """As the table shows it."""
        if self.method == "naive":
            solved = ""
        elif self.coupled == 1:
            solved = "coupled"
        else:
            solved = f"{100 * self.solved:.1f}%" + (", rest coupled" if self.coupled else "")
        return [
            str(self.steps), self.method, f"{self.mse:.2e}", f"{self.psnr:.1f}", f"{self.worst:.1f}", solved,
            f"{self.nfe:.0f}", *self.law.row(),
        ]  # fmt: skip

    def numbers(self) -> list[Any]:
        """As the CSV has it."""
        w = self.law
        measured = [w.mean, w.variance, w.norm, w.kurtosis, w.correlation]
        return [
            self.steps,
            self.method,
            self.mse,
            self.psnr,
            self.worst,
            self.solved,
            self.nfe,
            *measured,
            self.coupled,
        ]


def row_of(latents: Latents, std: float = 1.0) -> Reconstruction:
    """What the certificate says, as a row of the table; `std`: see `law`."""
    found, steps = latents.certificate, len(latents.recipe.tau) - 1
    mse = 10 ** (-found.psnr / 10)  # on [0, 1] the peak is 1, and PSNR does not depend on the scale
    mean = mse.mean()
    coupled = float(latents.coupled.double().mean())
    solved = 1 - coupled if latents.recipe.method == "exact" else 1 - len(latents.unsolved) / len(latents)
    return Reconstruction(
        steps, latents.recipe.method, float(mean), float(-10 * torch.log10(mean)), float(found.psnr.min()),
        solved, float(found.nfe.double().mean()) + steps, law(latents.x_T, std), coupled,
    )  # fmt: skip
