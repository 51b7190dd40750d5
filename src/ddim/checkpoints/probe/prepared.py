"""Which preparation of the same pictures a network knows better: enlarged, or within a border."""

from __future__ import annotations

import torch
from torch import Tensor

from ddim.checkpoints.probe.bench import LEVELS
from ddim.checkpoints.probe.readings import nearest
from ddim.checkpoints.record import Checkpoint
from ddim.denoise import NONE, labels
from ddim.process import noise


@torch.no_grad()
def denoising_error(checkpoint: Checkpoint, images: Tensor, seed: int = 0) -> Tensor:
    """log of the squared error of eps of each image, mean over the probe's levels; (N,), float64.

    Args:
        images: float (N, C, H, W) in [-1, 1]; class-conditional networks are told no class, or else class 0.
        seed: of the noise.
    """
    denoise, schedule = checkpoint.denoiser(checkpoint.network), checkpoint.schedule
    device = next((p.device for p in checkpoint.network.parameters()), torch.device("cpu"))
    x0 = checkpoint.space.encode(images.float().to(device))
    eps = noise(range(seed, seed + len(x0)), x0.shape[1:], purpose="probe").to(x0)
    told = NONE
    if checkpoint.num_classes is not None and checkpoint.null_label is None:
        told = labels(torch.zeros(len(x0), dtype=torch.int64, device=device))
    logs = []
    for level in LEVELS:
        t = nearest(schedule, level, checkpoint.space.unit**-2)
        at = schedule.at(t)
        error = (denoise(at.signal * x0 + at.noise * eps, t, told).eps - eps).square().flatten(1).mean(1)
        logs.append(error.clamp(1e-12, 1e12).log())
    return torch.stack(logs).mean(0).double().cpu()
