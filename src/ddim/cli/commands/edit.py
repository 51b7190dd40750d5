"""`ddim edit`: change an image by strength, by mask, by label or along a direction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

import ddim
from ddim.cli import options, show, typed
from ddim.files import new_folder
from ddim.refused import Refused

if TYPE_CHECKING:
    from torch import Tensor


@options.command
class Command(options.OnDevice, options.Quick, options.Steered, options.Walked, options.Out, options.OfModel):
    """Edit a real image with a model that was never trained to. One kind of edit a run:

    --mask paints the white part of the mask anew (RePaint); --label encodes the image and decodes it as another
    class; --minus and --plus move it along the mean difference of two sets of images; --strength alone noises it
    part of the way and denoises it (SDEdit): 0 keeps the image, 1 ignores it.
    """

    image: tyro.conf.Positional[Path]
    """The image to edit."""
    strength: float | None = None
    """How far up the edit starts, as a share of T; 0.5 alone, 1 with --label."""
    mask: Path | None = None
    """A picture of the image's size, white where to paint anew."""
    label: int | None = None
    """Class to turn the image into; with --mask or --strength: the class to paint."""
    from_label: int | None = None
    """With --label: the class the image shows now; without it the image is encoded with the class left open."""
    minus: Path | None = None
    """With --plus: a folder of images without the attribute."""
    plus: Path | None = None
    """With --minus: a folder of images with it."""
    amount: float = 1.0
    """With --plus: how far to go; 1 is the difference of the two means."""
    steps: int = 50
    seeds: str = "0-3"
    """One edit a seed, where the edit is random (--strength, --mask)."""
    eta: float | None = None
    """0 deterministic, 1 DDPM; 0 for --strength, 1 for --mask unless given."""
    resample: int = 5
    """With --mask: how often each stretch is walked, to bring both parts into harmony."""
    jump: int = 1
    """With --mask: steps of a stretch."""

    def run(self) -> None:
        out, kind = self.place(), self._kind()
        model = self.load()
        if not self.image.is_file():
            raise Refused(f"there is no image {self.image}")
        x = show.read_images(model, [self.image])
        noised = kind in ("strength", "mask")  # else the image is encoded
        seeds = ddim.process.parse_seeds(self.seeds) if noised else [0]
        precision = self.precision if noised else self.to_come_back
        sampler = self.sampler(model, steps=self.steps, label=self.label, clip=False, precision=precision)
        edits = getattr(self, f"_by_{kind}")(model, sampler, x, seeds)
        new_folder(out)
        told = {k: str(v) for k, v in vars(self).items() if k not in ("out", "model", "image")}
        told |= {"precision": model.runs_in(precision)}
        recipe = {"model": self.model, "weights": model.weights_hash, "image": str(self.image), "edit": kind} | told
        show.save_images(out, edits, [f"{s:06d}" for s in seeds], recipe)
        words = ["before", *(f"seed {s}" if len(seeds) > 1 else "after" for s in seeds)]
        show.save_sheet(out / "before-after.png", [x, edits], len(words), heads=words, recipe=recipe)
        change = float((edits - x).square().mean().sqrt())
        print(f"{len(edits)} edits by {kind} in {out}; root mean square change {change:.3f} of a range of 2")

    def _kind(self) -> Literal["strength", "mask", "label", "direction"]:
        if (self.minus is None) != (self.plus is None):
            raise Refused("--minus and --plus belong together: images without and with the attribute")
        if self.plus is not None and (self.mask is not None or self.label is not None or self.strength is not None):
            raise Refused("--plus is an edit of its own: give it without --mask, --label and --strength")
        if self.mask is not None and self.strength is not None:
            raise Refused("--mask paints from pure noise: give it without --strength")
        if self.from_label is not None and self.label is None:
            raise Refused("--from-label says what the image shows: give --label, what it shall become")
        if self.plus is not None or self.mask is not None:
            return "direction" if self.plus is not None else "mask"
        turned = self.label is not None and (self.strength is None or self.from_label is not None)
        return "label" if turned else "strength"

    def _by_mask(self, model: ddim.Model, sampler: ddim.Sampler, x: Tensor, seeds: list[int]) -> Tensor:
        images = sampler.space.encode(x).expand(len(seeds), *x.shape[1:])
        made = ddim.uses.inpaint(
            sampler.bound(seeds), images, show.read_mask(model, self.mask), sampler.tau, seeds=seeds,
            eta=1.0 if self.eta is None else self.eta, resample=self.resample, jump=self.jump,
        )  # fmt: skip
        return sampler.space.decode(made)

    def _by_strength(self, model: ddim.Model, sampler: ddim.Sampler, x: Tensor, seeds: list[int]) -> Tensor:
        strength, images = 0.5 if self.strength is None else self.strength, sampler.space.encode(x)
        images = images.expand(len(seeds), *x.shape[1:])
        bound, eta = sampler.bound(seeds), self.eta or 0.0
        made = ddim.uses.by_strength(bound, images, sampler.tau, strength, seeds=seeds, eta=eta)
        return sampler.space.decode(made)

    def _by_label(self, model: ddim.Model, sampler: ddim.Sampler, x: Tensor, seeds: list[int]) -> Tensor:
        how: Any = {"tau": sampler.tau, "spacing": "uniform", "guidance": 1.0, "precision": self.to_come_back}
        plain, strength = self.sampler(model, label=self.from_label, **how), self.strength
        made = ddim.uses.by_label(
            plain.bare, sampler.space.encode(x), sampler.tau, source=model.labels(self.from_label, 1),
            target=sampler.conditions(seeds).per_image["label"], strength=1.0 if strength is None else strength,
            guided=sampler.bare,
        )  # fmt: skip
        return sampler.space.decode(made)

    def _by_direction(self, model: ddim.Model, sampler: ddim.Sampler, x: Tensor, seeds: list[int]) -> Tensor:
        sets = [typed.image_files([folder]) for folder in (self.minus, self.plus) if folder is not None]
        without, having = (sampler.encode(show.read_images(model, files), "implicit").x_T for files in sets)
        towards = ddim.uses.direction(without, having)
        moved = ddim.uses.along(sampler.encode(x, "implicit").x_T, towards, self.amount)
        return sampler.sample(seeds, latents=moved)
