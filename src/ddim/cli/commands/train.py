"""`ddim train DATA --out RUN`: check the data, then train with checkpoints, previews and a bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import tyro

import ddim
from ddim.cli import learning, options
from ddim.cli.ofprocess import OfProcess
from ddim.refused import Refused


@options.command
class Command(OfProcess, learning.OfImages, learning.OfSteps, learning.OfClasses):
    """Train a noise-prediction network on your own images; the run folder is the model."""

    data: tyro.conf.Positional[str | None] = None
    """A folder of images, a folder per class, a .parquet file, a hub id, or "digits"; with --resume alone the run."""
    out: Path | None = None
    """The run folder: model, state/, averages/, previews/, log.jsonl, tensorboard/."""
    preset: str | None = None
    """The network: digits (8x8), mnist or grey32 (28x28, 32x32 grey), cifar10-small, colour32, colour32-small,
    cifar10, 64 or 128. Default: by size, or that of --init."""
    init: str | None = None
    """Fine-tune: begin with the weights of this model (bundled name, run, folder or checkpoint), not random ones."""
    autoencoder: str | None = None
    """Train in the latents of this autoencoder: its folder (of ddim train-autoencoder, or of diffusers), or a model's
    that has one. They are encoded once into the cache, and scaled to mean 0 and std 1 as measured on the data.
    Default: that of --init, or pixels."""
    max_steps: int = 10000
    batch_size: int | None = None
    """Images of one optimizer step, over all processes. Default: the preset's, 32 for small networks, else 64."""
    lr: float | None = None
    """Learning rate after the warm-up. Default: the preset's, 2e-3 for small networks, else 2e-4; with --init 2e-4."""
    OLD: ClassVar = {"clip": "grad_clip"}
    min_snr_gamma: float | None = None
    """Weight the loss by min(SNR, gamma); 0: all times alike. Default: 5 on --process ddpm, else 0."""
    schedule: Literal["linear", "scaled_linear", "cosine", "sigmoid"] | None = None
    """The noise schedule of --process ddpm. Default: that of --init, or cosine."""
    timesteps: int = 1000
    """T, the number of diffusion steps of the schedule."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that x_T is pure noise; needs --prediction v or x0."""
    labels: Literal["auto", "use", "ignore"] = "auto"
    """Whether to learn the classes; auto does if at least two have images; ignore passes any label column over."""
    snapshots: bool = True
    """Keep averages in RUN/averages for `ddim ema`: however long the run, at most some 26 files of 4 bytes a weight."""
    preview_precision: options.Fast = "auto"
    """Number format of the previews; auto as in `ddim sample`."""

    def settled(self, parse: Callable[[Command], Command]) -> Command:
        """With the run's own options for those not given, where one is gone on with; `parse` reads argv over others."""
        from ddim.cli import resumed

        return resumed.settled(self, parse) if self.resume else self

    def run(self) -> None:
        from ddim.cli import latent, training, usual

        if self.data is None or self.out is None:
            raise Refused("say of what and where: ddim train DATA --out RUN, or ddim train --resume RUN")
        cadence = training.cadence_of(vars(self))
        training.refuse_place(self.out, Path(self.data), self.resume)
        # A run that has a checkpoint needs the model it began from no more: that may be gone, or trained on.
        known = ddim.jobs.ancestor_of(self.out) if self.resume else None
        init = None if known is not None or self.init is None else ddim.load(self.init).checkpoint
        own = latent.named(self, init)
        autoencoder = latent.autoencoder_of(own.autoencoder, init)
        recipe = usual.recipe_of(vars(self), init, latent=autoencoder is not None)
        images = training.checked_images(
            self.data, size=self.size, fit=self.fit, channels=self.channels or latent.channels_of(autoencoder),
            skip_unreadable=self.skip_unreadable, labels=self.labels != "ignore",
        )  # fmt: skip
        preset = training.preset_of(self.preset, images, init, autoencoder)
        began = init is not None or known is not None
        latents = latent.encoded(images, autoencoder, own, measured=not began, preset=preset)
        plan = ddim.jobs.Plan(
            self.out, images, preset, usual.paced(recipe, vars(self), preset, init),
            training.labelled(self.labels, images), training.words_of(own, known), self.device, init, known, latents,
        )  # fmt: skip
        with training.memory(recipe):
            training.trained(plan, cadence, resume=self.resume)
