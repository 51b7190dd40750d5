"""`ddim edit` beside its options: which kind was asked for; a direction under a bar, and whether it leaves the law."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ddim import uses
from ddim.cli import show, typed
from ddim.model import Model, Sampler
from ddim.refused import Refused

MOST = 1024  # edits at once: all of them are in one picture
BATCH = 32  # images encoded at once
LENGTH = 2**0.5  # of the latent before it is brought back to its shell: beyond, the direction is longer than the image
ERRORS, ROOM = 4.0, 1.5  # standard errors that chance allows, and how far beyond the real images' own a latent may be


def kind_of(asked: Any) -> Literal["strength", "mask", "label", "direction"]:
    """The kind of edit these options of `ddim edit` name.

    Raises:
        Refused: several, or half of one.
    """
    if (asked.minus is None) != (asked.plus is None):
        raise Refused("--minus and --plus belong together: images without and with the attribute")
    if asked.plus is not None and (asked.mask is not None or asked.label is not None or asked.strength is not None):
        raise Refused("--plus is an edit of its own: give it without --mask, --label and --strength")
    if asked.mask is not None and asked.strength is not None:
        raise Refused("--mask paints from pure noise: give it without --strength")
    if asked.from_label is not None and asked.label is None:
        raise Refused("--from-label says what the image shows: give --label, what it shall become")
    if asked.plus is not None or asked.mask is not None:
        return "direction" if asked.plus is not None else "mask"
    turned = asked.label is not None and (asked.strength is None or asked.from_label is not None)
    return "label" if turned else "strength"


def one_class(model: Model, text: str | None, flag: str) -> int | None:
    """A single class by number or name, or None where none is given.

    Raises:
        Refused: no class, or several.
    """
    like = 'one class like "3"'
    found = [] if text is None else typed.classes(text, model.checkpoint.labels, flag, like)
    if text is not None and len(found) != 1:
        raise Refused(f"{flag} takes {like}, got {text!r}")
    return found[0] if found else None


def encoded(sampler: Sampler, sets: list[Tensor]) -> list[Tensor]:
    """x_T of each set of pictures (n, C, H, W), by the implicit solve, under one bar.

    Raises:
        Refused: an empty set.
    """
    if not all(map(len, sets)):
        raise Refused("a direction needs at least one image on each side")
    found: list[list[Tensor]] = [[] for _ in sets]
    before = 0
    with show.progress(sum(map(len, sets)), "images") as bar:
        for out, images in zip(found, sets, strict=True):
            for part in torch.split(images, BATCH):

                def tell(done: int, planned: int, start: int = before, n: int = len(part)) -> None:
                    bar(start + n * done // max(planned, 1))

                out.append(sampler.encode(part, "implicit", progress=tell).x_T)
                before += len(part)
                bar(before)
    return [torch.cat(out) for out in found]


def along(sampler: Sampler, x: Tensor, sets: list[Tensor], amount: float) -> tuple[Tensor, list[str]]:
    """x_T of picture x (1, C, H, W) moved along the direction between two sets of pictures, and what is to be said."""
    std = sampler.denoise.process.start(sampler.tau[0])
    without, having, own = (z / std for z in encoded(sampler, [*sets, x]))
    after, said = moved(own, without, having, amount)
    return std * after, said


def moved(x_T: Tensor, without: Tensor, having: Tensor, amount: float) -> tuple[Tensor, list[str]]:
    """x_T (1, *) moved along the mean difference of two sets of latents, and what is to be said of it."""
    towards = uses.direction(without, having)
    after = uses.along(x_T, towards, amount)
    rows = [["before", *uses.law(x_T).row()], ["after", *uses.law(after).row()]]
    said = [show.table(["latent", *uses.HEAD], rows)]
    left = outside(after, torch.cat([without if amount >= 0 else having, x_T]))
    length = float((x_T + amount * towards.to(x_T)).norm() / x_T.norm())
    if length > LENGTH:
        left.append(f"the direction is {(length**2 - 1) ** 0.5:.2g} times as long as the image's latent")
    if left:
        remedy = "lower --amount, or give more images a side, of a kind the model knows"
        said.append(f"warning: the edit leaves the law of latents: {'; '.join(left)}. It may show little of the image, "
                    f"or be no image at all: {remedy}")  # fmt: skip
    return after, said


def outside(z: Tensor, like: Tensor) -> list[str]:
    """Which numbers of the law of latents z are farther from N(0, I) than chance allows and than real images' are."""
    own = uses.law(z).deviations()
    real = [uses.law(like[i : i + 1]).deviations() for i in range(len(like))]
    limits = {name: max(ERRORS, ROOM * max(abs(r[name]) for r in real)) for name in own}
    return [f"its {name} is off by {abs(v):.0f} standard errors" for name, v in own.items() if abs(v) > limits[name]]
