"""A network of one's own, in memory, as a checkpoint: it was never a file, so its facts are told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Required, TypedDict, Unpack

from torch import nn

from ddim.checkpoints import Checkpoint
from ddim.files import weights_hash
from ddim.nets import adapted
from ddim.process import LEARNED_VARIANCES, Process, TimeLabel
from ddim.refused import Refused


class OwnFacts(TypedDict, total=False):
    """What a network's user knows of it; all but `shape` may be as usual.

    shape: (C, H, W) of one picture, or that of anything else: (C, L) of a signal, (D,) of a vector. prediction: a name
    of `PARAMETERISATIONS`. num_classes, null_label, labels: real classes 0..K-1, the label that means "any class",
    their names. clips, data_range, time_scale, time_label, data_std, unit_input: see `checkpoints.Checkpoint`; it does
    not clip unless told. learned_variance: it returns 2C channels, the second C a variance: what they mean,
    "learned_range" or "learned"; True where nobody knows.
    """

    shape: Required[tuple[int, ...]]
    prediction: str
    num_classes: int | None
    null_label: int | None
    labels: Sequence[str] | None
    clips: bool
    data_range: tuple[float, float]
    learned_variance: bool | str
    time_scale: float
    time_label: TimeLabel
    data_std: float
    unit_input: bool


def own_checkpoint(network: nn.Module, process: Process, **facts: Unpack[OwnFacts]) -> Checkpoint:
    """The checkpoint of a network in memory; see `Model.from_network`."""
    num_classes, null_label, labels = facts.get("num_classes"), facts.get("null_label"), facts.get("labels")
    if not isinstance(network, nn.Module):
        raise Refused(f"a model needs a torch.nn.Module (its weights name it); got {type(network).__name__}")
    if null_label is not None and num_classes is None:
        raise Refused(f"null_label = {null_label} says that there are classes: give num_classes")
    if labels is not None and len(labels) != num_classes:
        raise Refused(f"{len(labels)} label names for {num_classes} classes")
    variance = facts.get("learned_variance", False)
    if variance not in (True, False, *LEARNED_VARIANCES):
        raise Refused(f"`learned_variance` is one of {', '.join(LEARNED_VARIANCES)}, True or False; got {variance!r}")
    shape = tuple(facts["shape"])
    if not shape or not all(isinstance(side, int) and side > 0 for side in shape):
        raise Refused(f"`shape` is that of one picture, e.g. (3, 32, 32), without the batch; got {facts['shape']}")
    own = adapted(network, num_classes is not None, null_label)
    return Checkpoint(
        network=own.eval(), process=process, prediction=facts.get("prediction", "eps"), shape=shape,
        family="own", source=f"{type(network).__name__} in memory", sha256=weights_hash(network.state_dict()),
        num_classes=num_classes,
        null_label=null_label, labels=None if labels is None else tuple(labels),
        learned_variance=bool(variance), variance_type=variance if isinstance(variance, str) else None,
        time_scale=facts.get("time_scale", 1.0), time_label=facts.get("time_label"),
        data_std=facts.get("data_std", 0.5), unit_input=facts.get("unit_input", False),
        clips=facts.get("clips", False), data_range=facts.get("data_range", (-1.0, 1.0)),
    )  # fmt: skip
