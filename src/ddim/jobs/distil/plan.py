"""A student before it is made: of whom, on what, how, and what each stage is."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddim.checkpoints import Checkpoint, Student
from ddim.data import Batch, Batches, Images
from ddim.jobs.distil.losses import AsDenoiser, Consistency, Progressive
from ddim.jobs.distil.recipe import StudentRecipe
from ddim.jobs.latent import LatentData, latent_data
from ddim.jobs.train import BatchAt, Loss
from ddim.model import Model, load, student_times, through
from ddim.nets import OwnNetwork
from ddim.refused import Refused

STAGES, OURS = "stages", "ddim.json"  # which every model folder of ours has
ROWS = 16  # images a step on which a beginner is measured


@dataclass(frozen=True, eq=False)
class StudentPlan:
    """A student: in which folder, of which teacher, on which images, how; `init` has the weights to begin with.

    Raises:
        Refused: a teacher that cannot teach, or images of another shape.
    """

    run: Path
    teacher: Model
    images: Images
    recipe: StudentRecipe
    command: str = ""
    device: str = "auto"
    init: Model | None = None

    def __post_init__(self) -> None:
        checkpoint, recipe = self.teacher.checkpoint, self.recipe
        if self.images.shape != self.teacher.space.image_shape:
            raise Refused(
                f"the teacher makes pictures of {self.teacher.space.image_shape}, and {self.images.report.source} has "
                f"{self.images.shape}: give its own data, or none for the teacher's own pictures"
            )
        if checkpoint.exported is not None:
            raise Refused(
                f"{checkpoint.source} was exported for another runtime: a student begins from weights of torch"
            )
        if checkpoint.student is not None and (checkpoint.student.consistent or not recipe.progressive):
            raise Refused(
                f"{checkpoint.source} is a {checkpoint.student.kind} student: take its teacher as the teacher"
            )
        names, own = self.images.class_names or (), checkpoint.labels
        if self.labelled and ((checkpoint.num_classes or 0) < len(names) or (own and tuple(own) != tuple(names))):
            raise Refused(
                f"{self.images.report.source} has {len(names)} classes, {', '.join(names[:3])}, .., the teacher "
                f"{checkpoint.num_classes}, {', '.join((own or ('without names',))[:3])}, ..; "
                "give the data it was trained on, or none"
            )
        if self.init is not None:
            self._refuse_beginner(self.init.checkpoint)
        self.taught(0)

    def _refuse_beginner(self, init: Checkpoint) -> None:
        shapes = [{n: p.shape for n, p in c.network.state_dict().items()} for c in (init, self.teacher.checkpoint)]
        spaces = [None if c.autoencoder is None else c.autoencoder.identity for c in (init, self.teacher.checkpoint)]
        if shapes[0] != shapes[1] or init.prediction != self.prediction or spaces[0] != spaces[1]:
            raise Refused(
                f"`init` {init.source} is another network than the teacher's, predicts something else, or walks in "
                "another autoencoder's latents"
            )

    @property
    def labelled(self) -> bool:
        """Whether classes are handed on."""
        return self.teacher.num_classes is not None and self.images.labels is not None

    def stored(self) -> dict[str, Any]:
        """Everything a resume must find unchanged; data and teacher by what they are, not by where they lie."""
        return {
            **self.recipe.as_dict(), "teacher": self.teacher.checkpoint.identity, "shape": list(self.images.shape),
            "conditional": self.labelled, "data": self.images.report.sha256,
            "source": self.images.source, "command": self.command,
            **({} if self.init is None else {"init": self.init.checkpoint.sha256}),
        }  # fmt: skip

    def folder(self, index: int) -> Path:
        """The model folder of a stage; it is there when the stage is finished."""
        return self.run / STAGES / f"steps-{self.recipe.stages[index]}"

    def finished(self, index: int) -> bool:
        """Whether that stage's student is whole."""
        return (self.folder(index) / OURS).is_file()

    def times(self, index: int) -> tuple[Any, ...]:
        """The student's times after that stage: every so many of the teacher's."""
        steps = self.recipe.stages[index]
        if not self.recipe.progressive:
            return student_times(self.teacher.process, steps)
        taught = self.taught(0)
        return taught[:: (len(taught) - 1) // steps]

    def taught(self, index: int) -> tuple[Any, ...]:
        """The teacher's times in that stage."""
        if index:
            return self.times(index - 1)
        own, recipe, process = self.teacher.checkpoint.student, self.recipe, self.teacher.process
        if own is not None and recipe.progressive:
            if own.steps != recipe.start or recipe.tau:
                raise Refused(
                    f"this teacher is a student of its own {own.steps} calls: give `start` {own.steps}, no `tau`"
                )
            return own.tau
        if recipe.tau:
            return through(process, recipe.tau, recipe.start // recipe.stages[-1])
        return student_times(process, recipe.start)

    def master(self, index: int) -> Model:
        """Who teaches in that stage: the teacher, and then each student the next."""
        own = self.teacher.checkpoint.network
        if not index:
            return self.teacher
        module = copy.deepcopy(own.module) if isinstance(own, OwnNetwork) else None
        return load(self.folder(index - 1), network=module).to(self.teacher.device)

    def loss(self, index: int, master: Model) -> Loss[Any]:
        """What that stage minimises."""
        recipe, read = self.recipe, self._read(index)
        how: dict[str, Any] = {"label_dropout": recipe.label_dropout, "null_label": master.null_label}
        if recipe.method == "tuning":
            return Consistency(read, master.process, recipe.updates, None, recipe.q, **self._mapping, **how)
        first = index == 0
        sampler = master.sampler(
            tau=self.taught(index), label="cycle" if self.labelled else None, precision=recipe.precision,
            solver=recipe.solver if first else "ddim", guidance=recipe.guidance if first else 1.0,
        )  # fmt: skip
        if recipe.method == "distillation":
            return Consistency(read, master.process, recipe.updates, sampler.denoise, recipe.q, **self._mapping, **how)
        weighting: Any = recipe.loss
        steps = recipe.stages[index]
        loss = Progressive(sampler.denoise, read, self.taught(index), steps, weighting, sampler.solver, **how)
        if steps == 1:
            return loss
        some = [self.batches(index)(i, slice(None)) for i in range(math.ceil(steps * ROWS / recipe.batch_size))]
        label = torch.cat([b.label for b in some if b.label is not None]) if self.labelled else None
        batch = Batch(torch.cat([b.x0 for b in some]), label)
        return loss.by_need(self.beginner(index, master), batch, recipe.stage(index).seed, master.device)

    def beginner(self, index: int, master: Model) -> nn.Module:
        """The network with which that stage begins: its master's, or the first one `init`."""
        return (master if index or self.init is None else self.init).checkpoint.network

    @property
    def _mapping(self) -> dict[str, Any]:
        return {"mean": self.recipe.mean, "std": self.recipe.std}

    def _read(self, index: int) -> AsDenoiser:
        plain = self.model(self.teacher.checkpoint.network, index, student=False)
        return plain.denoiser

    @cached_property
    def latents(self) -> LatentData | None:
        """The images as the teacher's autoencoder has them, where it walks in latents."""
        own = self.teacher.checkpoint.autoencoder
        if own is None:
            return None
        return latent_data(self.images, own, measured=False, flip=self.recipe.flip, device=self.teacher.device)

    def batches(self, index: int) -> BatchAt:
        """The batch of a step of that stage, in the numbers the network walks in."""
        pace, space = self.recipe.stage(index), self.teacher.space
        how = {"flip": self.recipe.flip, "labelled": self.labelled}
        if self.latents is not None:
            return self.latents.batches(pace.batch_size, pace.seed, **how)
        own = Batches(self.images, pace.batch_size, pace.seed, **how)

        def at(step: int, rows: slice = slice(None)) -> Batch:
            batch = own(step, rows)
            return Batch(space.encode(batch.x0), batch.label)

        return at

    def model(self, network: nn.Module, index: int, *, student: bool = True, steps: int = 0) -> Checkpoint:
        """A network in training as the checkpoint its stage will be."""
        of, recipe = self.teacher.checkpoint, self.recipe
        kind = "progressive" if recipe.progressive else "consistency"
        told = Student(kind, self.times(index), of.sha256, recipe.guidance) if student else None
        clipped = "; the teacher's clip of x0 is folded in, so the student needs none" if of.clips else ""
        return replace(
            of, network=network, prediction=self.prediction, family="ddim", source=str(self.folder(index)), sha256="",
            clips=False, thresholding=False, spacing="trailing" if of.process.discrete else of.spacing, steps_offset=0,
            ends_at=0, student=told,
            notes=(f"a {kind} student of {len(self.times(index)) - 1} steps{clipped}",),
            meta={"provenance": self.provenance(index, steps)},
        )  # fmt: skip

    @property
    def prediction(self) -> str:
        """What the student returns: v for eps, whose error one step from pure noise divides by the signal there."""
        own = self.teacher.prediction
        return "v" if own == "eps" and self.recipe.progressive else own

    def provenance(self, index: int, steps: int) -> Mapping[str, Any]:
        """Where a stage's weights come from."""
        of = self.teacher.checkpoint
        return {
            "command": self.command, "data": self.images.report.source, "data_sha256": self.images.report.sha256,
            "images": len(self.images), "stage": index, "steps": steps, "weights": "ema" if self.recipe.ema else "last",
            "recipe": self.recipe.as_dict() | {"stages": list(self.recipe.stages)},
            "teacher": _origin(of), **({} if self.init is None else {"init": _origin(self.init.checkpoint)}),
        }  # fmt: skip


def _origin(of: Checkpoint) -> dict[str, Any]:
    return {"source": of.source, "sha256": of.sha256, "provenance": of.meta.get("provenance")}
