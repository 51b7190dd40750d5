"""Pictures of a run as it goes: what sampling from its folder would show at that step."""

from __future__ import annotations

import copy
import json

from PIL import Image

from ddim.jobs.train.plan import Plan
from ddim.jobs.train.state import TrainState
from ddim.model import Model
from ddim.nets import DiffusersNetwork
from ddim.pixels import enlargement, grid, save_png, to_uint8

PREVIEWS, PREVIEW_STEPS, ROWS = "previews", 20, 4


def preview(plan: Plan, state: TrainState[DiffusersNetwork], precision: str = "auto") -> Image.Image:
    """previews/step-N.png: seeds 0, 1, ... every time, 20 DDIM steps from the averaged weights, classes in turn, under
    their names.

    Through the same `Sampler` as whoever samples the run's folder with as many steps, the same seeds, label "cycle" and
    that precision; so the pictures are the same.
    """
    names = plan.images.class_names or () if plan.labelled else ()
    columns = max(2, min(len(names) or 8, 16))
    model = Model(plan.model(averaged(state))).to(state.accelerator.device)
    steps = int(min(PREVIEW_STEPS, model.most_steps))
    sampler = model.sampler(steps=steps, label="cycle" if plan.labelled else None, precision=precision)
    x = sampler.sample(range(ROWS * columns))
    picture = grid(
        to_uint8(x), columns, scale=enlargement(x.shape[2], columns),
        column_labels=names if len(names) == columns else None,
    )  # fmt: skip
    path = plan.run / PREVIEWS / f"step-{state.step:08d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, picture, {"ddim": json.dumps({"step": state.step, "preview_steps": steps, **sampler.recipe})})
    return picture


def averaged(state: TrainState[DiffusersNetwork]) -> DiffusersNetwork:
    """A copy of the network with the averaged weights; accelerate's wrapping of the original stays behind."""
    own = state.unwrapped
    with state.ema.applied(own):
        return DiffusersNetwork(copy.deepcopy(own.unet), own.null_label).eval()
