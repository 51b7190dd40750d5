"""`ddim train-autoencoder DATA --out AE`: an autoencoder of one's own pictures, for a model in its latents."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import tyro

import ddim
from ddim.cli import learning, options
from ddim.refused import Refused


@options.command
class Command(learning.OfImages, learning.OfSteps, learning.OfBatches, learning.Learning):
    """Train an autoencoder on your own images; the run folder is the autoencoder, as diffusers loads it.

    Its latents are scaled to mean 0 and std 1 as measured on the data. Next: ddim train DATA --autoencoder AE.
    """

    data: tyro.conf.Positional[str | None] = None
    """A folder of images, a .parquet file, a hub id, or "digits"; with --resume alone the run."""
    out: Path | None = None
    """The run folder: config.json and weights, ddim.json, state/, previews/, log.jsonl, tensorboard/."""
    init: str | None = None
    """An autoencoder to train on: a bundled name, a folder, a model's folder or a hub id. Its kind, factor, channels,
    width and blocks are its own."""
    kind: Literal["kl", "tiny"] = "kl"
    """diffusers' AutoencoderKL, or AutoencoderTiny, which is faster and has no KL."""
    factor: int = 4
    """How many times smaller a latent's sides are than the picture's: 2, 4, 8, ..."""
    latent_channels: int = 4
    """Channels of the latents."""
    width: int = 32
    """Channels of the first level; kl has twice and four times as many below."""
    blocks: int = 1
    """Blocks of a level."""
    kl_weight: float = 1e-6
    """Weight of the KL divergence beside the mean absolute error; of kl alone."""
    critic_from: int | None = None
    """From this step on a patch discriminator learns and is listened to: sharper, less faithful. Default: never."""
    critic_weight: float = 0.5
    """How much of the gradient at the last layer the discriminator has, times that of the error."""
    held_out: int | None = None
    """Images to measure PSNR and FD on, never learnt from. Default: 1000, or a tenth where there are fewer."""
    max_steps: int = 10000
    batch_size: int = 16
    lr: float = 1e-3
    """Learning rate after the warm-up."""
    warmup: int = 200
    optimizer: Literal["adam", "adamw"] = "adam"

    def settled(self, parse: Callable[[Command], Command]) -> Command:
        """With the run's own options for those not given, where one is gone on with; `parse` reads argv over others."""
        from ddim.cli import resumed

        return resumed.by_words(self, parse, "train-autoencoder", ddim.jobs.stored_recipe) if self.resume else self

    def run(self) -> None:
        from ddim.cli import encoding, training

        if self.data is None or self.out is None:
            raise Refused(
                "say of what and where: ddim train-autoencoder DATA --out AE, or ddim train-autoencoder --resume AE"
            )
        cadence = training.cadence_of({**vars(self), "snapshots": False})
        training.refuse_place(self.out, Path(self.data), self.resume)
        encoding.recipe_of(vars(self), 2)  # what cannot be is refused before the data is read
        images = training.checked_images(
            self.data, size=self.size, fit=self.fit, channels=self.channels, skip_unreadable=self.skip_unreadable,
            labels=False,
        )  # fmt: skip
        init = None if self.init is None else ddim.model.load_autoencoder(self.init)
        recipe = encoding.recipe_of(vars(self), len(images), init)
        words = training.words_of(self, None, "train-autoencoder")
        plan = ddim.jobs.AutoencoderPlan(self.out, images, recipe, words, self.device, init)
        with training.memory(recipe):
            encoding.trained(plan, cadence, resume=self.resume)
