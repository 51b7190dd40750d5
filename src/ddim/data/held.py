"""Some images of a set kept apart, so that what is learnt on the others can be measured on them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ddim.data.cache import Images
from ddim.pixels import Pixels
from ddim.process import generator
from ddim.refused import Refused


class Chosen:
    """Some rows of an array that is read only where it is asked for."""

    def __init__(self, of: Pixels, rows: npt.NDArray[np.int64]) -> None:
        self.of, self.rows = of, rows
        self.shape, self.dtype = (len(rows), *of.shape[1:]), of.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.of[self.rows[index]]


def held_out(images: Images, count: int, seed: int) -> tuple[Images, Images]:
    """(the others, `count` images chosen by the seed), each in the order of the set.

    Raises:
        Refused: fewer than one of either would be left.
    """
    if not 0 < count < len(images):
        raise Refused(f"of {len(images)} images {count} cannot be held out; give `held_out` 1 to {len(images) - 1}")
    order = generator(seed, "held out").permutation(len(images))
    parts = []
    for rows in (np.sort(order[count:]), np.sort(order[:count])):
        labels = None if images.labels is None else images.labels[rows]
        parts.append(replace(images, pixels=cast(Pixels, Chosen(images.pixels, rows)), labels=labels))
    return parts[0], parts[1]
