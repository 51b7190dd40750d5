"""`ddim train --autoencoder` beside its options: which autoencoder, whether sizes fit, the encoding under a bar."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ddim
from ddim.cli import show
from ddim.jobs import LatentData, latent_data
from ddim.nets import PRESETS
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.checkpoints import Checkpoint
    from ddim.data import Images
    from ddim.nets import Autoencoder


def autoencoder_of(asked: str | None, init: Checkpoint | None) -> Autoencoder | None:
    """The one asked for, or that of the model a run begins from; None where it walks in pixels.

    Raises:
        Refused: that model walks in pixels.
    """
    if init is None or asked is None:
        return None if asked is None else ddim.model.load_autoencoder(asked)
    if init.autoencoder is None:
        raise Refused(f"`init` {init.source} walks in pixels: give it without `autoencoder`")
    own = ddim.model.load_autoencoder(asked)
    if own.identity != init.autoencoder.identity:
        raise Refused(
            f"`init` {init.source} walks in the latents of another autoencoder, its own: leave out --autoencoder"
        )
    return own


def named(asked: Any, init: Checkpoint | None) -> Any:
    """The options with the autoencoder that `init` brings, and its folder as it is understood from any folder: so a run
    that goes on finds it."""
    own = None if init is None or init.autoencoder is None else init.source
    given = asked.autoencoder or own
    return replace(asked, autoencoder=str(Path(given).absolute()) if given and Path(given).is_dir() else given)


def channels_of(autoencoder: Autoencoder | None) -> Literal[1, 3] | None:
    """Of the pictures it takes; None where there is none, or where pictures have no so many."""
    found = None if autoencoder is None else autoencoder.pictured
    return 1 if found == 1 else 3 if found == 3 else None


def refuse_sizes(images: Images, autoencoder: Autoencoder, preset: str) -> None:
    """That autoencoder and network can halve the pictures.

    Raises:
        Refused: other channels or sizes; with those that can be had.
    """
    autoencoder.latent_shape(images.shape)
    _, h, w = images.shape
    least = autoencoder.factor * PRESETS[preset].divisor
    if h % least or w % least:
        near = "x".join(str(max(1, round(n / least)) * least) for n in (h, w))
        raise Refused(
            f"the autoencoder and preset {preset} halve pictures {least.bit_length() - 1} times together, so height "
            f"and width must be multiples of {least}, got {h}x{w}; give `size` {near}, or a preset with fewer levels"
        )


def encoded(
    images: Images, autoencoder: Autoencoder | None, asked: Any, *, measured: bool, preset: str | None = None
) -> LatentData | None:  # fmt: skip
    """The data in latents, under a bar, and what was found told on stderr; None where they stay pixels."""
    if autoencoder is None:
        return None
    if preset is not None:
        refuse_sizes(images, autoencoder, preset)
    with show.progress(len(images), "images encoded") as bar:
        made = latent_data(
            images, autoencoder, measured=measured, flip=asked.flip, device=asked.device,
            progress=lambda done, total: bar(done),
        )  # fmt: skip
    spread, scale = made.encoded.spread, float(made.autoencoder.scale.flatten()[0])
    means, shape = ", ".join(f"{m:.3g}" for m in spread.mean), "x".join(map(str, made.shape))
    said = f"latents {shape} of {autoencoder.kind}: means {means}, std {spread.std:.4g}; scaled by {scale:.4g}"
    print(said, file=sys.stderr)
    return made
