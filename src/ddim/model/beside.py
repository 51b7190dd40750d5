"""Guidance made definite, and the models at this one's side: a guide, a network for the noisy steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

from ddim.checkpoints import Checkpoint, load_tuned_guidance, load_tuned_handover
from ddim.denoise import Autoguided, Denoiser, Interval, Stitched, refuse_outside
from ddim.model.ready import Ready
from ddim.model.told import Nulls, clipped, guided, nulls_as_json, refuse_no_number
from ddim.process import Time
from ddim.refused import Refused

Weight = float | Literal["tuned"]
"""Of guidance, or what `ddim tune` found for this solver and number of steps, with its interval."""


@dataclass(frozen=True, eq=False)
class Steering:
    """What turns one network's answer into that of the sampler, beside its conditions and its clip.

    Attributes:
        weight, interval: of guidance, by the null label (or `null`), or by another model, the `guide`.
        early, at: another model for t > at.
    """

    weight: float = 1.0
    interval: Interval | None = None
    guide: Ready | None = None
    null: Nulls | None = None
    early: Ready | None = None
    at: Time | None = None

    @classmethod
    def of(
        cls, model: Ready, weight: Weight, interval: Interval | None, guide: Ready | None, null: Nulls | None,
        early: Ready | None, at: Time | None, *, labelled: bool, solver: str, steps: int,
    ) -> Self:  # fmt: skip
        """As asked for; what was tuned is looked up beside this model.

        Raises:
            Refused: another model that does not fit this one, an interval or a hand-over outside the times, or one
                without what it belongs to; nothing tuned.
        """
        for other, role in ((guide, "guide"), (early, "early")):
            if other is not None:
                refuse_unlike(model, other, role, labelled=labelled)
        if guide is not None and null is not None:
            raise Refused("`null` is what guidance by labels leaves out; a `guide` takes its place: give one of them")
        identity, folder = model.checkpoint.identity, model.folder
        if isinstance(weight, str) and weight == "tuned":
            if interval is not None:
                raise Refused("tuned `guidance` brings its own `interval`: give one, or the weight as a number")
            by = None if guide is None else guide.identity
            weight, interval = load_tuned_guidance(folder, solver, steps, identity, by)
        refuse_no_number(weight)
        if interval is not None:
            interval = _interval(model, float(weight), interval)
        if at is not None and early is None:
            raise Refused(f"`at` = {at} hands over from another network: name it, `early`")
        if early is not None and at is None:
            at = load_tuned_handover(folder, solver, steps, identity, early.identity)
        if at is not None:
            refuse_outside(model.process, at)
        return cls(float(weight), interval, guide, null, early, at)

    def denoisers(
        self, model: Ready, *, labelled: bool, clip: bool | None, precision: str, compiled: bool
    ) -> tuple[Denoiser, Denoiser]:
        """The denoiser without clips, and with them."""

        def of_one(one: Ready) -> tuple[Denoiser, Denoiser]:
            bare = self._guided(one, labelled, precision, compiled)
            return bare, clipped(one.checkpoint, bare, clip)

        bare, whole = of_one(model)
        if self.early is None or self.at is None:
            return bare, whole
        early, early_whole = of_one(self.early)
        return Stitched(early, bare, self.at), Stitched(early_whole, whole, self.at)

    def _guided(self, one: Ready, labelled: bool, precision: str, compiled: bool) -> Denoiser:
        network, checkpoint = one.network(precision, compiled), one.checkpoint
        if self.guide is None or self.weight == 1.0:
            weight, interval = (self.weight, self.interval) if self.guide is None else (1.0, None)
            return guided(checkpoint, network, weight, labelled=labelled, null=self.null, interval=interval)
        guide = self.guide.checkpoint.denoiser(self.guide.network(precision, compiled))
        return Autoguided(checkpoint.denoiser(network), guide, self.weight, self.interval)

    def as_json(self) -> dict[str, Any]:
        """As a recipe keeps it, beside the weight: what is not there is left out; models by their identity."""
        found: dict[str, Any] = {}
        if self.interval is not None:
            found["interval"] = list(self.interval)
        if self.guide is not None and self.weight != 1.0:
            found["guide"] = self.guide.identity
        if self.null is not None:
            found["null"] = nulls_as_json(self.null)
        if self.early is not None:
            found |= {"early": self.early.identity, "at": self.at}
        return found


def refuse_unlike(model: Ready, other: Any, role: str, *, labelled: bool) -> None:
    """Another model that cannot answer for the same x_t, t and labels.

    Raises:
        Refused: in what it differs, and what to take instead.
    """
    if not isinstance(other, Ready):
        raise Refused(f"`{role}` is a model, as ddim.load gives it; got a {type(other).__name__}")
    own, theirs = model.checkpoint, other.checkpoint
    for what, mine, its in (
        ("process", own.process, theirs.process), ("image shape", own.shape, theirs.shape),
        ("number of classes", own.num_classes, theirs.num_classes), ("data range", own.data_range, theirs.data_range),
        ("autoencoder", *("none" if k.autoencoder is None else k.autoencoder.identity for k in (own, theirs))),
    ):  # fmt: skip
        if mine != its:
            shown = f"{_told(own) if what == 'process' else mine}, that of `{role}` {_told(theirs, its, what)}"
            raise Refused(
                f"`{role}` has another {what}: this model's is {shown}; take an early checkpoint of the same run, "
                "or a network trained alike"
            )
    if not labelled and theirs.num_classes is not None and theirs.null_label is None:
        raise Refused(f"`{role}` knows only classes 0..{theirs.num_classes - 1}: give a `label`")
    if model.device != other.device:
        raise Refused(f"`{role}` lies on {other.device}, the model on {model.device}: load both with one `device`")


def _told(checkpoint: Checkpoint, value: Any = None, what: str = "process") -> str:
    """A schedule in the words by which two of them differ; anything else as it is."""
    if what != "process":
        return str(value)
    if not checkpoint.process.discrete:
        return checkpoint.process.name
    table = checkpoint.schedule.alpha_bar
    middle = len(table) // 2
    return f"T = {len(table) - 1} with alpha_bar[{middle}] = {float(table[middle]):.6g}"


def _interval(model: Ready, weight: float, interval: Any) -> Interval:
    """Two times of the process, the cleaner one first."""
    process, T = model.process, model.process.T
    if weight == 1.0:
        raise Refused(f"`interval` {tuple(interval)} says where guidance acts: give `guidance`, a weight other than 1")
    whole = (int,) if process.discrete else (int, float)
    if len(interval) != 2 or not all(isinstance(t, whole) and 0 <= t <= T for t in interval):
        kind = "whole times" if process.discrete else "times"
        raise Refused(f"`interval` is (low, high), two {kind} in 0..{T:g}; got {tuple(interval)}")
    low, high = interval
    return low, high
