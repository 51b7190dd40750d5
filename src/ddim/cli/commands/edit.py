"""`ddim edit`: change an image by strength, by mask, by label or along a direction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from ddim import uses as edit
from ddim.cli.latent_common import enlargement, image_files, read_images, save_images
from ddim.cli.show import new_folder
from ddim.model import Model, load
from ddim.pixels import fitted, grid, open_image, save_png, to_uint8
from ddim.process import parse_seeds
from ddim.refused import Refused
from ddim.solve import sample


@dataclass(frozen=True)
class Command:
    """Edit a real image with a model that was never trained to. One kind of edit a run:

    --mask paints the white part of the mask anew (RePaint); --label encodes the image and decodes it as another
    class; --minus and --plus move it along the mean difference of two sets of images; --strength alone noises it
    part of the way and denoises it (SDEdit): 0 keeps the image, 1 ignores it.
    """

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    image: tyro.conf.Positional[Path]
    """The image to edit."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the edits go: a new or empty folder."""
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
    guidance: float = 1.0
    """Weight of classifier-free guidance when decoding under --label."""
    steps: int = 50
    """S, the number of steps."""
    spacing: str = "uniform"
    """Which steps; see `ddim sample --help`."""
    seeds: str = "0-3"
    """One edit a seed, where the edit is random (--strength, --mask)."""
    eta: float | None = None
    """0 deterministic, 1 DDPM; 0 for --strength, 1 for --mask unless given."""
    resample: int = 5
    """With --mask: how often each stretch is walked, to bring both parts into harmony."""
    jump: int = 1
    """With --mask: steps of a stretch."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""

    def run(self) -> None:
        if self.out is None:
            raise Refused("say where the edits go: --out DIR")
        kind = self._kind()
        model = load(self.model, device=self.device)
        if not self.image.is_file():
            raise Refused(f"there is no image {self.image}")
        x, times = read_images(model, [self.image]), model.tau(self.steps, self.spacing)
        seeds = parse_seeds(self.seeds) if kind in ("strength", "mask") else [0]
        label = None if self.label is None else model.labels(self.label, len(seeds))
        made = {"mask": self._by_mask, "label": self._by_label, "direction": self._along, "strength": self._by_strength}
        known = model.space.encode(x)
        edits = model.space.decode(made[kind](model, known, times, seeds, label))
        out = new_folder(self.out)
        options = {k: str(v) for k, v in vars(self).items() if k not in ("out", "model", "image")}
        recipe = {"model": self.model, "weights": model.weights_hash, "image": str(self.image), "edit": kind} | options
        save_images(out, edits, [f"{s:06d}" for s in seeds], recipe)
        words = ["before", *(f"seed {s}" if len(seeds) > 1 else "after" for s in seeds)]
        both = grid(to_uint8(torch.cat([x, edits])), len(words), column_labels=words, scale=enlargement(model))
        save_png(out / "before-after.png", both, {"ddim": json.dumps(recipe)})
        change = float((edits - x).square().mean().sqrt())
        print(f"{len(edits)} edits by {kind} in {out}; root mean square change {change:.3f} of a range of 2")

    def _kind(self) -> str:
        if (self.minus is None) != (self.plus is None):
            raise Refused("--minus and --plus belong together: images without and with the attribute")
        if self.plus is not None and (self.mask is not None or self.label is not None or self.strength is not None):
            raise Refused("--plus is an edit of its own: give it without --mask, --label and --strength")
        if self.mask is not None and self.strength is not None:
            raise Refused("--mask paints from pure noise: give it without --strength")
        if self.from_label is not None and self.label is None:
            raise Refused("--from-label says what the image shows: give --label, what it shall become")
        if self.plus is not None:
            return "direction"
        if self.mask is not None:
            return "mask"
        return (
            "label" if self.label is not None and (self.strength is None or self.from_label is not None) else "strength"
        )

    def _by_mask(self, model: Model, x: Tensor, times: tuple[int, ...], seeds: list[int], label: Any) -> Tensor:
        if self.mask is None or not self.mask.is_file():
            raise Refused(f"there is no mask {self.mask}")
        picture = fitted(open_image(self.mask).convert("L"), model.shape[1:])
        paint = torch.from_numpy(np.array(picture, dtype=np.uint8) >= 128).to(model.device)
        denoise = model.denoiser(guidance=self._weight(label), label=label, clip=False)
        eta = 1.0 if self.eta is None else self.eta
        images = x.expand(len(seeds), *x.shape[1:])
        return edit.inpaint(denoise, images, paint, times, seeds=seeds, eta=eta, resample=self.resample, jump=self.jump)

    def _by_strength(self, model: Model, x: Tensor, times: tuple[int, ...], seeds: list[int], label: Any) -> Tensor:
        denoise = model.denoiser(guidance=self._weight(label), label=label, clip=False)
        strength = 0.5 if self.strength is None else self.strength
        images = x.expand(len(seeds), *x.shape[1:])
        return edit.by_strength(denoise, images, times, strength, seeds=seeds, eta=self.eta or 0.0)

    def _by_label(self, model: Model, x: Tensor, times: tuple[int, ...], seeds: list[int], label: Any) -> Tensor:
        source = None if self.from_label is None else model.labels(self.from_label, 1)
        model.labels(self.from_label, 1)
        plain: Any = model.denoiser(clip=False)
        guided = plain
        if self.guidance != 1.0:
            guided = model.guided(self.guidance)
        strength = 1.0 if self.strength is None else self.strength
        return edit.by_label(plain, x, times, source=source, target=label, strength=strength, guided=guided)

    def _along(self, model: Model, x: Tensor, times: tuple[int, ...], seeds: list[int], label: Any) -> Tensor:
        sets = []
        for folder in (self.minus, self.plus):
            files = image_files([Path(str(folder))])
            sets.append(model.encode(read_images(model, files), tau=times, method="implicit").x_T)
        latent = model.encode(model.space.decode(x), tau=times, method="implicit").x_T
        moved = edit.along(latent, edit.direction(*sets), self.amount)
        return sample(model.denoiser(clip=False), moved, times)

    def _weight(self, label: Any) -> float:
        if label is None and self.guidance != 1.0:
            raise Refused(f"--guidance {self.guidance} needs --label")
        return self.guidance
