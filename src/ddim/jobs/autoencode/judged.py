"""An autoencoder as it is so far: the law of its latents, its reconstructions of held-out images, a picture of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from ddim.data import Images, Spread
from ddim.engine import undisturbed
from ddim.jobs.autoencode.plan import AutoencoderPlan
from ddim.jobs.train import PREVIEWS
from ddim.metrics import Extractor, Moments, distance_name, extractor, frechet, usual
from ddim.nets import Autoencoder
from ddim.pixels import enlargement, from_uint8, grid, save_png, to_uint8
from ddim.refused import Refused
from ddim.uses import Reproduction

PIXELS = 256 * 64 * 64  # of the pictures looked at together
LATENTS = 4096  # pictures whose latents are measured
COLUMNS, ROWS = 8, 2  # of a preview


@dataclass(frozen=True)
class Reconstructed:
    """At a step: the autoencoder with latents of mean 0 and std 1, and the numbers of its reconstructions."""

    step: int
    autoencoder: Autoencoder
    numbers: dict[str, float]


class Reconstructions:
    """What is measured, the same images every time."""

    def __init__(self, plan: AutoencoderPlan) -> None:
        self.plan = plan
        self.name = usual(plan.images.shape[0])

    @cached_property
    def _real(self) -> tuple[Extractor, Moments | None]:
        of, held = extractor(self.name), self.plan.parts[1]
        seen = torch.cat([of.features(x) for x in _batches(held)]) if len(held) > 1 else None
        return of, None if seen is None else Moments.of(seen)

    @torch.no_grad()
    def measured(self, made: Autoencoder, step: int) -> Reconstructed:
        """Scale the latents as they are on the images learnt from, then reconstruct those held out.

        Raises:
            Refused: the latents say nothing of the pictures; with their std.
        """
        train, held = self.plan.parts
        rows = range(0, len(train), max(1, len(train) // LATENTS))
        device = made.scale.device
        with undisturbed(device):
            moments = torch.cat([made.moments(x.to(device)).cpu() for x in _batches(train, rows[:LATENTS])])
            spread = spread_of(moments)
            if spread.collapsed:
                r = self.plan.recipe
                less = f"`kl_weight` (now {r.kl_weight:g})" if r.kind == "kl" else f"`lr` (now {r.lr:g})"
                raise Refused(
                    f"the autoencoder has collapsed by step {step}: from picture to picture its latents differ by a "
                    f"std of {spread.apart:.2g}, and their own is {spread.std:.2g}, so they say nothing of a picture; "
                    f"begin anew with a lower {less}, or with pictures that differ"
                )
            own = made.standardised(torch.tensor(spread.mean), spread.std).to(device)
            of, real = self._real
            scores, features = [], []
            for x in _batches(held):
                y = own.decode(own.encode(x.to(device))).cpu().clamp(-1, 1)
                scores.append(Reproduction.of(y, x).psnr)
                features.append(of.features(y))
        numbers = {"psnr": float(torch.cat(scores).mean()), "latent_std": spread.std}
        if real is not None:
            numbers[distance_name(of.name)] = frechet(Moments.of(torch.cat(features)), real)
        return Reconstructed(step, own, numbers)

    @torch.no_grad()
    def picture(self, made: Autoencoder, step: int) -> Image.Image:
        """previews/step-N.png: held-out images, under each its reconstruction."""
        held = self.plan.parts[1]
        shown = from_uint8(held.pixels[list(range(min(len(held), ROWS * COLUMNS)))])
        device = made.scale.device
        with undisturbed(device):
            back = made.decode(made.encode(shown.to(device))).cpu()
        n = min(COLUMNS, len(shown))
        rows = len(shown) // n
        pixels = []
        for first in range(0, rows * n, n):
            pixels += [*to_uint8(shown[first : first + n]), *to_uint8(back[first : first + n])]
        picture = grid(
            pixels, n, scale=enlargement(shown.shape[2], n), row_labels=("input", "output") * rows,
        )  # fmt: skip
        path = self.plan.run / PREVIEWS / f"step-{step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_png(
            path,
            picture,
            {"ddim": json.dumps({"step": step, "psnr": Reproduction.of(back.clamp(-1, 1), shown).psnr.tolist()})},
        )
        return picture


def spread_of(moments: Tensor) -> Spread:
    """Of latents (N, M, C, h, w), M the mean and, where it is drawn, the std."""
    own, drawn = moments[:, 0].double(), moments[:, 1:].double().square().sum(1)
    mean = own.mean((0, 2, 3))
    variance = (own - mean.view(-1, 1, 1)).square().mean() + drawn.mean()
    apart = own.var(0, correction=0).mean()
    return Spread(tuple(mean.tolist()), float(variance.sqrt()), float(apart.sqrt()))


def _batches(images: Images, rows: Sequence[int] | None = None) -> Iterator[Tensor]:
    """Those images, few at once where they are large."""
    rows, (_, h, w) = range(len(images)) if rows is None else rows, images.shape
    each = max(1, min(256, PIXELS // (h * w)))
    for first in range(0, len(rows), each):
        yield from_uint8(images.pixels[list(rows[first : first + each])])
