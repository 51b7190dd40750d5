"""What lies between seeds, image files and classes: latents along paths, and the images a sampler makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim import uses
from ddim.model import Model, Sampler
from ddim.refused import Refused


@dataclass(frozen=True)
class Between:
    """Points to walk between.

    Attributes:
        sampler: label -> the sampler that makes every image here.
        weights: of each point its class as weights over the embeddings (points, K + 1), or None.
        latents, images: of each point, (*state_shape) and (C, H, W) in [-1, 1].
        notes: how well the files come back, for people.
        words: what names each point: a seed, or a file.
    """

    sampler: Callable[[Any], Sampler]
    weights: Tensor | None
    latents: tuple[Tensor, ...]
    images: tuple[Tensor, ...]
    notes: tuple[str, ...]
    words: tuple[str, ...]

    @classmethod
    def of(
        cls, model: Model, sampler: Callable[[Any], Sampler], words: Sequence[str], classes: Sequence[int] | None,
        read: Callable[[Path], Tensor],
    ) -> Between:  # fmt: skip
        """The points of these words, seeds or image files (`read` makes a picture of one); files are encoded.

        Raises:
            Refused: neither.
        """
        weights, latents, images, notes = None, [], [], []
        if classes is not None:
            width = int(model.num_classes or 0) + (model.null_label is not None)
            weights = torch.nn.functional.one_hot(torch.tensor(classes), width).float().to(model.device)
        for i, word in enumerate(words):
            if word.isdecimal():
                made = sampler(None if weights is None else weights[i : i + 1])
                latents.append(made.start([int(word)])[0])
                images.append(made.sample([int(word)])[0])
                continue
            if not Path(word).exists():
                raise Refused(f"{word} is neither a seed nor an image file")
            x = read(Path(word))
            z = sampler(None if classes is None else classes[i]).encode(x, "implicit")
            whole = (
                "" if z.fidelity is None else f" in latents, its autoencoder alone {float(z.fidelity.psnr[0]):.1f} dB"
            )
            notes.append(f"{word}: encoded, comes back at {float(z.certificate.psnr[0]):.1f} dB{whole}")
            latents.append(z.x_T[0])
            images.append(x[0])
        return cls(sampler, weights, tuple(latents), tuple(images), tuple(notes), tuple(words))

    def strip(self, frames: int, rule: str) -> tuple[Tensor, str]:
        """Images along the path through all points, and what it does to the norm, in words."""
        x_T = uses.path(self.latents, frames, uses.rule_named(rule))
        middle = x_T[len(x_T) // 2]
        norm = float(middle.norm()) / middle.numel() ** 0.5
        return self._made(x_T, self._mixed(frames)), f"{rule}: norm of the middle latent {norm:.3f} of sqrt(d)"

    def square(self, rows: int, columns: int, rule: str) -> Tensor:
        """Images between four corners, row by row."""
        x_T = uses.path_grid(self.latents, rows, columns, uses.rule_named(rule)).flatten(0, 1)
        mixed = None
        if self.weights is not None:
            mixed = uses.path_grid(list(self.weights), rows, columns, uses.lerp).flatten(0, 1)
        return self._made(x_T, mixed)

    def mixtures(self, frames: int, seed: int) -> Tensor:
        """DDPM's stochastic interpolation between the first image and the last, mixed at half of T."""
        sampler = self.sampler(self._mixed(frames))
        space, denoise = sampler.space, sampler.bound(range(frames))
        lower = tuple(t for t in sampler.tau if t <= denoise.process.T // 2)
        u = torch.linspace(0, 1, frames, device=sampler.device)
        first, last = (space.encode(x) for x in (self.images[0], self.images[-1]))
        return space.decode(uses.ddpm_interpolation(denoise, first, last, u, lower, seed=seed))

    def _mixed(self, frames: int) -> Tensor | None:
        return None if self.weights is None else uses.path(list(self.weights), frames, uses.lerp)

    def _made(self, x_T: Tensor, weights: Tensor | None) -> Tensor:
        return self.sampler(weights).sample(range(len(x_T)), latents=x_T)

    def heads(self, frames: int) -> list[str]:
        """Above each frame of a strip: the point it is, or how far along the whole path it is."""
        places = [Fraction(i * (len(self.words) - 1), frames - 1) for i in range(frames)]
        shares = (f"{i / (frames - 1):.2f}" for i in range(frames))
        return [_shown(self.words[int(p)]) if p.denominator == 1 else u for p, u in zip(places, shares, strict=True)]

    def corners(self, rows: int, columns: int) -> list[str]:
        """Below each picture of a square: the corner it is, or nothing."""
        at = (0, columns - 1, (rows - 1) * columns, rows * columns - 1)
        names = dict(zip(at, map(_shown, self.words), strict=True))
        return [names.get(i, "") for i in range(rows * columns)]


def _shown(word: str) -> str:
    """A point, for a caption: "seed 3" or a file's name."""
    return f"seed {word}" if word.isdecimal() else Path(word).stem
