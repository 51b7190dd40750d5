"""Which preparation of the same pictures a network knows better: enlarged, or within a border."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddim.checkpoints.probe.readings import LEVELS, nearest
from ddim.checkpoints.record import Checkpoint
from ddim.denoise import NONE, labels
from ddim.process import Continuous, Process, Schedule, noise


@torch.no_grad()
def denoising_error(checkpoint: Checkpoint, images: Tensor, seed: int = 0) -> Tensor:
    """log of the squared error of eps of each image, mean over the probe's levels; (N,), float64.

    Args:
        images: float (N, C, H, W) in [-1, 1]; class-conditional networks are told no class, or else class 0.
        seed: of the noise.
    """
    denoise, process = checkpoint.denoiser(checkpoint.network), checkpoint.process
    device = next((p.device for p in checkpoint.network.parameters()), torch.device("cpu"))
    x0 = checkpoint.space.encode(images.float().to(device))
    eps = noise(range(seed, seed + len(x0)), x0.shape[1:], purpose="probe").to(x0)
    told = NONE
    if checkpoint.num_classes is not None and checkpoint.null_label is None:
        told = labels(torch.zeros(len(x0), dtype=torch.int64, device=device))
    logs = []
    for level in LEVELS:
        t = _nearest(process, level, checkpoint.space.unit)
        at = process.at(t)
        error = (denoise(at.signal * x0 + at.noise * eps, t, told).eps - eps).square().flatten(1).mean(1)
        logs.append(error.clamp(1e-12, 1e12).log())
    return torch.stack(logs).mean(0).double().cpu()


def _nearest(process: Process, alpha_bar: float, unit: float) -> int | float:
    """The time at which pictures, in the network's unit, are as noisy as at this alpha_bar; within the process."""
    if isinstance(process, Schedule):
        return nearest(process, alpha_bar, unit**-2)
    assert isinstance(process, Continuous)  # there are no others
    at, ratio = process.at(process.T), math.sqrt((1.0 - alpha_bar) / alpha_bar) / unit
    if at.signal > 0.0 and ratio >= at.noise / at.signal:
        return float(process.T)
    return max(float(process.first), process.time_of(ratio))
