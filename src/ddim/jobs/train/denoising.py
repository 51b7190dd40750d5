"""A run that trains a denoiser: what its folder, its loop and its checkpoints have to know."""

from __future__ import annotations

from typing import Any

from PIL import Image

from ddim.checkpoints import save_folder
from ddim.jobs.train.course import Course
from ddim.jobs.train.descent import begin_from
from ddim.jobs.train.loop import BatchAt
from ddim.jobs.train.loss import Denoising
from ddim.jobs.train.plan import Plan
from ddim.jobs.train.previews import preview
from ddim.jobs.train.state import TrainState, new_network
from ddim.nets import DiffusersNetwork


class DenoiserRun(Course[DiffusersNetwork]):
    """The run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.run, self.recipe = plan, plan.run, plan.recipe
        self.images, self.device = plan.images, plan.device

    @property
    def remedy(self) -> str:
        return f"start from it with `init` {self.run} and a new `out`"

    def stored(self) -> dict[str, Any]:
        return self.plan.stored()

    def fresh(self) -> DiffusersNetwork:
        classes = len(self.images.class_names or ()) if self.plan.labelled else None
        return new_network(self.plan.recipe, self.plan.preset, self.plan.shape, classes)

    def begin(self, state: TrainState[DiffusersNetwork]) -> None:
        if self.plan.init is not None:
            begin_from(self.plan.init, state, self.plan.recipe, self.plan.autoencoder)

    def batches(self) -> BatchAt:
        return self.plan.batches()

    def loss(self) -> Denoising:
        return Denoising.of(self.plan.recipe)

    def preview(self, state: TrainState[DiffusersNetwork], precision: str) -> Image.Image:
        return preview(self.plan, state, precision)

    def export(self, state: TrainState[DiffusersNetwork]) -> None:
        plan = self.plan
        meta: dict[str, Any] = {
            **plan.facts,
            "provenance": {
                "command": plan.command, "data": plan.images.report.source, "data_sha256": plan.images.report.sha256,
                "images": len(plan.images), "steps": state.step, "preset": plan.preset, "weights": "ema",
                "recipe": plan.recipe.as_dict(),
                **({"retreat": state.retreat._asdict()} if state.retreat is not None else {}),
                **({"init": dict(plan.descent)} if plan.descent is not None else {}),
                **({"autoencoder": plan.latents.given} if plan.latents is not None else {}),
            },
        }  # fmt: skip
        process, said = plan.recipe.noise_process(), str(plan.recipe.prediction)
        with state.ema.applied(state.unwrapped):
            save_folder(
                plan.run, state.unwrapped.unet, process, prediction=said, meta=meta, autoencoder=plan.autoencoder
            )
