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
from ddim.data.latents import LatentImages
from ddim.pixels import from_uint8
from ddim.process import generator
from ddim.refused import Refused


class Batch(NamedTuple):
    """Clean images float32 (B, C, H, W) in [-1, 1], and their classes int64 (B,) or None."""

    x0: Tensor
    label: Tensor | None


class Order:
    """Which of `count` items make up the batch of a step: epoch after epoch, each in an order of its own.

    Raises:
        Refused: batch_size below 1, or no items.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise Refused(f"the batch size must be at least 1, got {batch_size}")
        if count < 1:
            raise Refused("there is nothing to make batches of")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self._kept: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __call__(self, step: int) -> npt.NDArray[np.int64]:
        """Places int64 (B,) of the batch of this step."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, within = np.divmod(places, self.count)
        out = np.empty(self.batch_size, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            out[here] = self._permutation(int(epoch))[within[here]]
        return out

    def _permutation(self, epoch: int) -> npt.NDArray[np.int64]:
        if self._kept[0] != epoch:
            self._kept = (epoch, generator(self.seed, "order", epoch).permutation(self.count))
        return self._kept[1]


class TensorBatches:
    """batch_at(step, rows) of tensors of one's own, of any shape, in the order in which `Batches` takes images.

    Args:
        x0: clean items (N, *), in the numbers the network sees.
        batch_size: B, items of one optimizer step.
        seed: decides the order.
        label: their classes, int64 (N,), or None.

    Raises:
        Refused: B below 1; no items; another number of labels.
    """

    def __init__(self, x0: Tensor, batch_size: int, seed: int = 0, *, label: Tensor | None = None) -> None:
        if label is not None and len(label) != len(x0):
            raise Refused(f"{len(x0)} items, but {len(label)} labels")
        self.x0, self.label, self.order = x0, label, Order(len(x0), batch_size, seed)

    def __call__(self, step: int, rows: slice = slice(None)) -> Batch:
        index = torch.from_numpy(self.order(step)[rows])
        return Batch(self.x0[index], None if self.label is None else self.label[index])


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
        if labelled and images.labels is None:
            raise Refused(f"{images.report.source} has no classes: labels need a folder per class or a label column")
        self.images, self.batch_size, self.seed, self.flip, self.labelled = images, batch_size, seed, flip, labelled
        self._order = Order(len(images), batch_size, seed)

    def indices(self, step: int) -> npt.NDArray[np.int64]:
        """Which images make up the batch of this step, int64 (B,)."""
        return self._order(step)

    def __call__(self, step: int, rows: slice = slice(None)) -> Batch:
        index = self.indices(step)[rows]
        mirrored = np.zeros(len(index), bool)
        if self.flip:
            mirrored = generator(self.seed, "flip", step).random(self.batch_size)[rows] < 0.5
        label = (
            torch.from_numpy(self.images.labels[index]) if self.labelled and self.images.labels is not None else None
        )
        return Batch(self._clean(index, mirrored, step, rows), label)

    def _clean(
        self, index: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_], step: int, rows: slice
    ) -> Tensor:  # fmt: skip
        pixels = self.images.pixels[index]
        pixels[mirrored] = pixels[mirrored][:, :, ::-1]
        return from_uint8(pixels)


class LatentBatches(Batches):
    """The same of latents (mean + std z - shift) scale, z a function of (seed, step) alone: rows of the whole batch's.

    Args:
        encoded: the data, with mirror images where `flip` asks for them.
        shift, scale: (C, 1, 1) or (1, 1, 1).
        batch_size, seed, flip, labelled: see `Batches`.
    """

    def __init__(
        self, encoded: LatentImages, shift: Tensor, scale: Tensor, batch_size: int, seed: int, *, flip: bool = False,
        labelled: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(encoded.images, batch_size, seed, flip=flip, labelled=labelled)
        self.rows, self.shift, self.scale = encoded.rows, shift.cpu(), scale.cpu()

    def _clean(
        self, index: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_], step: int, rows: slice
    ) -> Tensor:  # fmt: skip
        mean, *std = torch.from_numpy(self.rows[index, mirrored.astype(np.int64)]).unbind(1)
        if std:
            z = generator(self.seed, "latent", step).standard_normal((self.batch_size, *mean.shape[1:]), np.float32)
            mean = mean + std[0] * torch.from_numpy(z[rows])
        return (mean - self.shift) * self.scale
