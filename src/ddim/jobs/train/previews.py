"""Pictures of a run as it goes, in the precision it trains in."""

from __future__ import annotations

import json

import torch
from PIL import Image

from ddim.denoise import Clip, Denoiser, NetworkDenoiser, bound, labels
from ddim.jobs.train.plan import Plan
from ddim.jobs.train.state import TrainState
from ddim.nets import DiffusersNetwork
from ddim.pixels import grid, save_png, to_uint8
from ddim.process import noise, tau
from ddim.solve import sample

PREVIEWS, PREVIEW_STEPS = "previews", 20


@torch.no_grad()
def preview(plan: Plan, state: TrainState[DiffusersNetwork], rows: int = 4) -> Image.Image:
    """previews/step-N.png: the same seeds every time, 20 DDIM steps from the averaged weights, x0 clipped."""
    schedule = plan.recipe.noise_schedule()
    columns = len(plan.images.class_names or ()) if plan.labelled else 8
    columns = max(2, min(columns, 16))
    network = state.unwrapped
    device = state.accelerator.device
    denoise: Denoiser = Clip(NetworkDenoiser(network, schedule, plan.recipe.prediction))
    if plan.labelled:
        classes = len(plan.images.class_names or ())
        label = torch.arange(rows * columns, device=device) % columns % classes
        denoise = bound(denoise, labels(label))
    x_T = noise(range(rows * columns), plan.images.shape, device=device)
    network.eval()
    with (
        state.ema.applied(network),
        torch.autocast(device.type, torch.bfloat16, enabled=plan.recipe.precision != "fp32"),
    ):
        x = sample(denoise, x_T, tau(schedule.T, min(PREVIEW_STEPS, schedule.T)))
    network.train()
    picture = grid(to_uint8(x), columns)
    path = plan.run / PREVIEWS / f"step-{state.step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, picture, {"ddim": json.dumps({"step": state.step, "preview_steps": PREVIEW_STEPS})})
    return picture
