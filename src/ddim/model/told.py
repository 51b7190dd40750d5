"""What the network is told of each image beside its class, and what guidance puts in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from ddim.checkpoints import Checkpoint
from ddim.denoise import NONE, Conditions, Denoiser, Guided, Interval
from ddim.model.asked import Eta, LabelRule, Labels
from ddim.model.ready import Ready
from ddim.nets import OwnNetwork
from ddim.process import Time
from ddim.refused import Refused
from ddim.solve import Solver

Told = Conditions | Callable[[Sequence[int]], Conditions]
"""Conditions of the images of one call, row by row; or seeds -> those of their images, for whoever makes batches."""
Nulls = Mapping[str, int | Tensor]
"""What means "no condition", by name: a class, or a tensor of the shape of one row."""


class How(TypedDict, total=False):
    """The keywords of `Model.sampler`, for those who pass them on."""

    steps: int | None
    spacing: str | Sequence[Time]
    tau: Sequence[Time] | None
    solver: str | Solver[Any]
    eta: Eta
    label: Labels
    conditions: Told | None
    guidance: float | Literal["tuned"]
    interval: Interval | None
    guide: Ready | None
    null: Nulls | None
    early: Ready | None
    at: Time | None
    clip: bool | None
    precision: str
    compiled: bool


@dataclass(frozen=True, eq=False)
class ToldRule:
    """Seeds -> their classes and their other conditions, on the network's device."""

    classes: LabelRule
    more: Told | None
    device: torch.device

    def __call__(self, seeds: Sequence[int]) -> Conditions:
        own = self.classes(seeds)
        if self.more is None:
            return own
        more = self.more if isinstance(self.more, Conditions) else self.more(seeds)
        if "label" in more.arguments and self.classes.num_classes is not None:
            raise Refused("classes are given as `label`, not among `conditions`")
        return own | more.to(self.device)

    def as_json(self) -> Any:
        """The other conditions, as a recipe keeps them; a rule by its repr."""
        return self.more.as_json() if isinstance(self.more, Conditions) else repr(self.more)


def refuse_untold(checkpoint: Checkpoint, more: Told | None) -> None:
    """Conditions for a network that takes classes alone."""
    if more is not None and not (isinstance(more, Conditions) or callable(more)):
        raise Refused(f"`conditions` are ddim.Conditions, or a rule seeds -> Conditions; got a {type(more).__name__}")
    if more is not None and not isinstance(checkpoint.network, OwnNetwork):
        raise Refused("this model's network takes a `label` and no other `conditions`; one of your own may take any")


def refuse_no_number(weight: Any) -> None:
    """A weight of guidance that is not one number for all images.

    Raises:
        Refused: shows it.
    """
    if isinstance(weight, str):
        raise Refused(f'`guidance` is a number, or "tuned"; got {weight!r}')
    if getattr(weight, "ndim", 0) or isinstance(weight, Sequence):
        raise Refused(f"`guidance` is one number for all images, got {weight}")


def guided(
    checkpoint: Checkpoint, network: Any, weight: float, *, labelled: bool, null: Nulls | None,
    interval: Interval | None = None,
) -> Denoiser:  # fmt: skip
    """The network as a denoiser under classifier-free guidance; itself at weight 1.

    Raises:
        Refused: guidance without anything to leave out, or a weight that is not one number.
    """
    denoise: Denoiser = checkpoint.denoiser(network)
    refuse_no_number(weight)
    if float(weight) == 1.0:
        return denoise
    if checkpoint.student is not None and checkpoint.student.guidance != 1.0:
        folded = checkpoint.student.guidance
        raise Refused(f"this student has guidance {folded:g} in its weights: leave `guidance` out, got {weight:g}")
    if null is not None:
        return Guided(denoise, float(weight), null, interval=interval)
    if not labelled or checkpoint.null_label is None:
        need = "a label" if checkpoint.null_label is not None else "a model trained with label dropout"
        raise Refused(
            f"guidance = {weight} needs {need}, or `null`: what stands for no condition, by name; "
            "or a `guide`, another model"
        )
    return Guided(denoise, float(weight), checkpoint.null_label, interval=interval)


def clipped(checkpoint: Checkpoint, denoise: Denoiser, clip: bool | None) -> Denoiser:
    """The same with x0 clamped, or not, or as the checkpoint says."""
    if clip is not None and getattr(clip, "ndim", False):
        raise Refused(f"`clip` is true or false for all images, got {clip}")
    if not (checkpoint.clips if clip is None else clip):
        return denoise
    return checkpoint.clipped(denoise, dynamic=checkpoint.thresholding and clip is None)


def nulls_as_json(null: Nulls) -> dict[str, Any]:
    """As a recipe keeps them."""
    return Conditions(shared=null).as_json() if null else NONE.as_json()
