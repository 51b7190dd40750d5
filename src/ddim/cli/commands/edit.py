"""`ddim edit`: change an image by strength, by mask, by label or along a direction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

import ddim
from ddim.cli import options, pictures, results, show, steered, typed
from ddim.files import free_folder
from ddim.refused import Refused

if TYPE_CHECKING:
    from torch import Tensor


@options.command
class Command(
    options.OnDevice, options.Quick, steered.Steered, options.Walked, options.Out, pictures.Fitted, pictures.Skipping,
    options.OfModel,
):  # fmt: skip
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
    label: str | None = None
    """Class, by number or name, to turn the image into; with --mask or --strength: the class to paint."""
    from_label: str | None = None
    """With --label: the class the image shows now; without it the image is encoded with the class left open."""
    minus: Path | None = None
    """With --plus: a folder of images without the attribute."""
    plus: Path | None = None
    """With --minus: a folder of images with it."""
    amount: float = 1.0
    """With --plus: how far to go; 1 is the difference of the two means."""
    USUAL = 50
    seeds: str = "0-3"
    """One edit a seed, where the edit is random (--strength, --mask)."""
    eta: float | None = None
    """0 deterministic, 1 DDPM; 0 for --strength, 1 for --mask unless given."""
    resample: int = 5
    """With --mask: how often each stretch is walked, to bring both parts into harmony."""
    jump: int = 1
    """With --mask: steps of a stretch."""

    def run(self) -> None:
        from ddim.cli import edits

        out, kind = free_folder(self.place()), edits.kind_of(self)
        noised = kind in ("strength", "mask")  # else the image is encoded
        seeds = ddim.process.parse_seeds(self.seeds, edits.MOST) if noised else [0]
        model = self.load()
        if not self.image.is_file():
            raise Refused(f"there is no image {self.image}")
        x, precision = self.read(model, [self.image]), self.precision if noised else self.to_come_back
        label = edits.one_class(model, self.label, "--label")
        sampler = self.sampler(model, steps=self.steps_of(model), label=label, clip=False, precision=precision)
        made = getattr(self, f"_by_{kind}")(model, sampler, x, seeds)
        told = {k: str(getattr(self, k)) for k in self.__dataclass_fields__ if k not in ("out", "model", "image")}
        told |= {"steps": str(len(sampler.tau) - 1), "precision": model.runs_in(precision)}
        recipe = {"model": self.model, "weights": model.weights_hash, "image": str(self.image), "edit": kind} | told
        words = ["before", *(f"seed {s}" if len(seeds) > 1 else "after" for s in seeds)]

        def write(place: Path) -> None:
            show.save_images(place, made, [f"{s:06d}" for s in seeds], recipe)
            show.save_sheet(place / "before-after.png", [x, made], len(words), heads=words, recipe=recipe)

        results.in_folder(out, write)
        change = f"root mean square change {float((made - x).square().mean().sqrt()):.3f} of a range of 2"
        print(f"{len(made)} edits by {kind} in {out}; {change}")

    def _by_mask(self, model: ddim.Model, sampler: ddim.Sampler, x: Tensor, seeds: list[int]) -> Tensor:
        images = sampler.space.encode(x).expand(len(seeds), *sampler.space.state_shape)
        mask = show.read_mask(model, self.mask, self.image, self.fit, self.inner(model.picture_shape))
        made = ddim.uses.inpaint(
            sampler.bound(seeds), images, sampler.space.mask(mask), sampler.tau, seeds=seeds,
            eta=1.0 if self.eta is None else self.eta, resample=self.resample, jump=self.jump,
        )  # fmt: skip
        return sampler.space.decode(made).where(mask, x)  # kept pixels are the picture's own, whatever the space

    def _by_strength(self, model: ddim.Model, sampler: ddim.Sampler, x: Tensor, seeds: list[int]) -> Tensor:
        images = sampler.space.encode(x).expand(len(seeds), *sampler.space.state_shape)
        strength, eta = 0.5 if self.strength is None else self.strength, self.eta or 0.0
        made = ddim.uses.by_strength(sampler.bound(seeds), images, sampler.tau, strength, seeds=seeds, eta=eta)
        return sampler.space.decode(made)

    def _by_label(self, model: ddim.Model, sampler: ddim.Sampler, x: Tensor, seeds: list[int]) -> Tensor:
        from ddim.cli import edits

        how: Any = {"tau": sampler.tau, "spacing": "auto", "guidance": 1.0, "guide": None, "interval": None}
        source = edits.one_class(model, self.from_label, "--from-label")
        plain, strength = self.sampler(model, label=source, precision=self.to_come_back, **how), self.strength
        made = ddim.uses.by_label(
            plain.bare, sampler.space.encode(x), sampler.tau, source=model.labels(source, 1),
            target=sampler.conditions(seeds).per_image["label"], strength=1.0 if strength is None else strength,
            guided=sampler.bare,
        )  # fmt: skip
        return sampler.space.decode(made)

    def _by_direction(self, model: ddim.Model, sampler: ddim.Sampler, x: Tensor, seeds: list[int]) -> Tensor:
        from ddim.cli import edits

        sets = [self.readable(typed.image_files([folder])) for folder in (self.minus, self.plus) if folder is not None]
        moved, words = edits.along(sampler, x, [self.read(model, own) for own in sets], self.amount)
        print(*words, sep="\n")
        return sampler.sample(seeds, latents=moved)
