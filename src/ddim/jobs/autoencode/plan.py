"""An autoencoder before it is trained: in which folder, of which images, how."""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddim.data import Images, held_out
from ddim.jobs.autoencode.recipe import AutoencoderRecipe
from ddim.nets import AUTOENCODERS, Autoencoder, PatchCritic, Trainee, new_autoencoder
from ddim.refused import Refused


@dataclass(frozen=True, eq=False)
class AutoencoderPlan:
    """A run: where, of what, how; `init` has the weights and the architecture to begin with.

    Raises:
        Refused: images that such an autoencoder cannot halve, or too few of them; a critic with several processes; an
            `init` whose codes are quantised.
    """

    run: Path
    images: Images
    recipe: AutoencoderRecipe
    command: str = ""
    device: str = "auto"
    init: Autoencoder | None = None

    def __post_init__(self) -> None:
        if self.recipe.critic_from is not None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise Refused("a patch discriminator learns in one process: leave out `critic_from`, or start one process")
        if self.init is not None and self.init.kind not in AUTOENCODERS.values():
            raise Refused(f"`init` is a {self.init.kind}; trained here are {' and '.join(AUTOENCODERS.values())}")
        _ = self.latent_shape, self.parts

    @cached_property
    def parts(self) -> tuple[Images, Images]:
        """The images learnt from, and those held out."""
        return held_out(self.images, self.recipe.held_out, self.recipe.seed)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Of one picture's latents."""
        if self.init is not None:
            return self.init.latent_shape(self.images.shape)
        with torch.device("meta"):
            module = self.module()
        return Autoencoder(module, "none").latent_shape(self.images.shape)

    def module(self) -> nn.Module:
        """The autoencoder before its first step."""
        r = self.recipe
        if self.init is not None:
            return copy.deepcopy(self.init.module).requires_grad_(True)
        return new_autoencoder(
            r.kind, shape=self.images.shape, factor=r.factor, latent_channels=r.latent_channels, width=r.width,
            blocks=r.blocks, seed=r.seed,
        )  # fmt: skip

    def trainee(self) -> Trainee:
        """It and its critic."""
        r, (c, h, w) = self.recipe, self.images.shape
        halvings = 3 if min(h, w) >= 64 else 2 if min(h, w) >= 16 else 1
        critic = None if r.critic_from is None else PatchCritic(c, halvings=halvings, seed=r.seed)
        return Trainee(self.module(), critic, r.kl_weight, r.critic_weight)

    def stored(self) -> dict[str, Any]:
        """Everything a resume must find unchanged; the data by what its pixels are, not by where they lie."""
        return {
            **self.recipe.as_dict(), "shape": list(self.images.shape), "data": self.images.report.sha256,
            "source": self.images.source, "command": self.command,
            **({} if self.init is None else {"init": self.init.sha256}),
        }  # fmt: skip
