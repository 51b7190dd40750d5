"""The batch of step n as a pure function of (seed, n): nothing to save, nothing to restore after a crash.

The stream of images is epoch after epoch, each in its own order; a batch is a window of that stream, so the
last images of an epoch are never dropped and a batch may be larger than the data set.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ddim.data.cache import Images
from ddim.pixels import from_uint8
from ddim.process import generator
from ddim.refused import Refused


class Batch(NamedTuple):
    """Clean images float32 (B, C, H, W) in [-1, 1], and their classes int64 (B,) or None."""

    x0: Tensor
    label: Tensor | None


class Batches:
    """batch_at(step, rows) -> rows of the batch of that step.

    Args:
        images: the data.
        batch_size: B, images of one optimizer step, over all processes and accumulation parts.
        seed: decides the order and the flips.
        flip: mirror each image left to right with probability 1/2.
        labelled: hand out the classes.

    Raises:
        Refused: B below 1; labels asked of data without classes.
    """

    def __init__(
        self, images: Images, batch_size: int, seed: int, *, flip: bool = False, labelled: bool = True
    ) -> None:
        if batch_size < 1:
            raise Refused(f"the batch size must be at least 1, got {batch_size}")
        if labelled and images.labels is None:
            raise Refused(f"{images.report.source} has no classes: labels need a folder per class or a label column")
        self.images, self.batch_size, self.seed, self.flip, self.labelled = images, batch_size, seed, flip, labelled
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def indices(self, step: int) -> npt.NDArray[np.int64]:
        """Which images make up the batch of this step, int64 (B,)."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, within = np.divmod(places, len(self.images))
        out = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self._permutation(int(epoch))[within[here]]
        return out

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._order[0] != epoch:
            self._order = (epoch, generator(self.seed, "order", epoch).permutation(len(self.images)))
        return self._order[1]

    def __call__(self, step: int, rows: slice = slice(None)) -> Batch:
        index = self.indices(step)[rows]
        pixels = self.images.pixels[index]
        if self.flip:
            mirrored = generator(self.seed, "flip", step).random(self.batch_size)[rows] < 0.5
            pixels[mirrored] = pixels[mirrored][:, :, ::-1]
        label = (
            torch.from_numpy(self.images.labels[index]) if self.labelled and self.images.labels is not None else None
        )
        return Batch(from_uint8(pixels), label)
