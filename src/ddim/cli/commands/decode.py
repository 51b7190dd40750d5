"""`ddim decode`: a file of latents to images."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

import ddim
from ddim.cli import options, results, show, steered
from ddim.files import free_folder
from ddim.refused import Refused

if TYPE_CHECKING:
    from torch import Tensor

    from ddim.uses import Latents


@options.command
class Command(
    options.OnDevice, options.Exactly, options.Batched, steered.GuidedBy, options.Labelled, options.Spaced, options.Out,
    options.OfModel,
):  # fmt: skip
    """Latents to images: those they were made from, or, under another recipe, new ones (it says so).

    Without --steps, --spacing, --label, --guidance and --interval they are those of the encoding. A --guide has to be
    named again.
    """

    latents: tyro.conf.Positional[Path]
    """A file from `ddim encode`."""
    steps: int | None = None
    """Another number of steps than the encoding's."""
    guidance: float | None = None
    """Another weight of guidance; default: that of the encoding."""
    batch_size: int = 50

    def run(self) -> None:
        self.refuse_no_batch()
        out, latents = free_folder(self.place()), ddim.Latents.load(self.latents)
        model = self.load()
        if tuple(latents.shape[1:]) != tuple(model.shape):
            raise Refused(
                f"{self.latents} holds latents of shape {tuple(latents.shape[1:])}, {self.model} makes {model.shape}"
            )
        images = self._decoded(self._sampler(model, latents), latents.to(model.device))
        names = unique(latents.names, {"grid"}) or [f"{i:06d}" for i in range(len(latents))]
        asked = {"steps": self.steps, "label": self.label, "guidance": self.guidance}
        recipe = {"model": self.model, "weights": model.weights_hash, "latents": str(self.latents), **asked}

        def write(place: Path) -> None:
            show.save_images(place, images, names, recipe)
            show.save_sheet(place / "grid.png", [images[:1024]], captions=names[:1024])

        results.in_folder(out, write)
        print(f"{len(images)} images in {out}")

    def _sampler(self, model: ddim.Model, latents: Latents) -> ddim.Sampler:
        """As they were encoded, but for what is asked for."""
        known = latents.recipe.conditions
        label: Any = known.get("label") if self.label is None else self.classes(model, range(len(latents)))
        if isinstance(label, list) and len(label) > 1:
            label = dict(enumerate(label))
        own = self.steps is None and self.spacing in ("auto", "uniform")
        guide = known.get("guide", {})
        if guide and self.guide is None and self.guidance is None:
            raise Refused(f"{self.latents} was encoded with a guide: name it again (--guide), or give --guidance 1")
        weight = guide.get("weight", known.get("guidance", 1.0)) if self.guidance is None else self.guidance
        interval = guide.get("interval", known.get("interval")) if self.guidance is None else None
        return self.sampler(
            model, steps=self.steps, tau=latents.recipe.tau if own else None, label=label, guidance=weight,
            **({} if interval is None or self.interval is not None else {"interval": tuple(interval)}),
        )  # fmt: skip

    def _decoded(self, sampler: ddim.Sampler, latents: Latents) -> Tensor:
        import torch

        images, notes = [], list[str]()
        for i in range(0, len(latents), self.batch_size):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                part = latents.part(i, i + self.batch_size)
                images.append(sampler.decode(part, seeds=range(i, i + len(part))))
            notes += [str(w.message) for w in caught if w.category is UserWarning and "recipe" in str(w.message)]
        for note in notes[:1]:  # every batch has the same to say
            print(f"note: {note}")
        return torch.cat(images)


def unique(names: tuple[str, ...], taken: set[str]) -> list[str]:
    """Names with a number after those that come twice (images of several folders) or are taken."""
    found: list[str] = []
    for name in names:
        others = {*taken, *names, *found}
        numbered = (f"{name}-{k}" for k in itertools.count())
        alone = names.count(name) == 1 and name not in taken
        found.append(name if alone else next(n for n in numbered if n not in others))
    return found
