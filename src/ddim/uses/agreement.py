"""The same latents at different numbers of steps: how far apart the images are.

What holds for DDIM (section 5.2 of the paper, stated with care): the images agree in their large features and
draw together as S grows, in first order; they are not the same bits, and at few steps some become another
image. For DDPM nothing of the kind holds: its images share no more than the latent's last trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim.denoise import NONE, Conditions, Denoiser
from ddim.process import as_rows
from ddim.solve import DDIM, sample


class Distance(NamedTuple):
    """One number of steps and one eta: images (B, *) and their distance to the long trajectory.

    Attributes:
        distance: root mean square difference of every image to the long trajectory of the same latent, (B,).
        long: the long trajectory's images, (B, *).
        unrelated: the same between the long trajectories of different latents, averaged: what no likeness means.
    """

    steps: int
    eta: float
    images: Tensor
    distance: Tensor
    long: Tensor
    unrelated: float


def same_latents(
    denoise: Denoiser,
    x_T: Tensor,
    taus: Sequence[Sequence[Any]],
    reference: Sequence[Any],
    *,
    etas: Sequence[float] = (0.0, 1.0),
    seeds: Sequence[int],
    conditions: Conditions = NONE,
) -> Iterator[Distance]:
    """For each eta, the images at every tau against the deterministic trajectory on `reference`.

    Args:
        denoise: the denoiser.
        x_T: latents (B, *).
        taus: the times to compare, each as `ddim.tau` gives them.
        reference: the times of the long trajectory, walked with eta = 0.
        seeds: of the noise that eta above 0 injects; one an image.
    """
    long = sample(denoise, x_T, reference, conditions=conditions)
    unrelated = float(_rms(long, long.roll(1, 0)).mean())
    for eta in etas:
        for times in taus:
            images = sample(denoise, x_T, times, solver=DDIM(eta=eta), seeds=seeds, conditions=conditions)
            yield Distance(len(times) - 1, eta, images, _rms(images, long), long, unrelated)


def _rms(a: Tensor, b: Tensor) -> Tensor:
    return torch.as_tensor(as_rows((a - b).double()).square().mean(1).sqrt())
