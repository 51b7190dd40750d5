"""A data set as a process in latents sees it: encoded once, scaled, drawn anew in every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddim.data import Images, LatentBatches, LatentImages, open_latents
from ddim.engine import pick_device, undisturbed
from ddim.nets import Autoencoder


@dataclass(frozen=True, eq=False)
class LatentData:
    """Latents of a data set, (encoded - shift) scale, and the autoencoder that has such latents.

    given: the hash of the autoencoder that encoded them, whatever its scale.
    """

    encoded: LatentImages
    autoencoder: Autoencoder
    given: str
    shift: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one latent."""
        return self.encoded.shape

    def batches(self, batch_size: int, seed: int, *, flip: bool, labelled: bool) -> LatentBatches:
        """The batch of a step, drawn and scaled."""
        scale = self.autoencoder.scale
        return LatentBatches(self.encoded, self.shift, scale, batch_size, seed, flip=flip, labelled=labelled)


def latent_data(
    images: Images,
    autoencoder: Autoencoder,
    *,
    measured: bool,
    flip: bool = False,
    device: str | torch.device = "auto",
    cache: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatentData:
    """Encode a data set, or find it encoded in the cache.

    Args:
        measured: scale the latents to mean 0 and std 1 on these data; else as the autoencoder's own file says.
        flip: mirror images are wanted too.

    Raises:
        Refused: pictures that the autoencoder does not take; one that has collapsed, or gives no finite numbers.
    """
    plain, where = autoencoder.plain, pick_device(device)
    plain.latent_shape(images.shape)

    def encode(x: Tensor) -> Tensor:
        with undisturbed(where), torch.no_grad():
            return plain.to(where).moments(x.to(where)).cpu()

    encoded = open_latents(images, encode, plain.identity, flip=flip, cache=cache, progress=progress)
    encoded.check()
    mean, std = torch.tensor(encoded.spread.mean), encoded.spread.std
    made = autoencoder.standardised(mean, std) if measured else autoencoder
    within = made.sha256 != autoencoder.sha256  # the means went into its weights
    return LatentData(encoded, made, plain.identity, mean.view(-1, 1, 1) if within else made.shift)
