"""Pictures that lie in memory as a data set: what trains, tunes and evaluates takes them like a folder's."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from torch import Tensor

from ddim.data.cache import Images
from ddim.data.report import Report
from ddim.pixels import Pixels, to_uint8
from ddim.refused import Refused


def images_of(x: Tensor | Pixels, label: Tensor | None = None, *, name: str = "memory") -> Images:
    """A data set of pictures in memory, rounded to 8 bits.

    Args:
        x: float (N, C, H, W) in [-1, 1], clamped, or uint8 (N, H, W, C); C is 1 or 3.
        label: their classes 0..K-1, int64 (N,), or None.
        name: what reports call it.

    Raises:
        Refused: another shape; fewer than 2; another number of labels.
    """
    pixels = to_uint8(x) if isinstance(x, Tensor) and x.ndim == 4 else x
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) < 2:
        raise Refused(f"a data set is at least 2 pictures, (N, C, H, W) or uint8 (N, H, W, C), got {tuple(x.shape)}")
    n, height, width, channels = pixels.shape
    if channels not in (1, 3):
        raise Refused(f"pictures have 1 or 3 channels, got {channels}")
    if label is not None and (len(label) != n or int(label.min()) < 0):
        raise Refused(f"{n} pictures need {n} classes from 0, got {len(label)}")
    labels = None if label is None else label.cpu().numpy().astype(np.int64)
    names = None if labels is None else tuple(str(k) for k in range(int(labels.max()) + 1))
    told = hashlib.sha256(json.dumps([list(pixels.shape), None if labels is None else labels.tolist()]).encode())
    told.update(np.ascontiguousarray(pixels).tobytes())
    classes = None if names is None or labels is None else {k: int((labels == i).sum()) for i, k in enumerate(names)}
    report = Report(name, n, (channels, height, width), {f"{width}x{height}": n}, {}, classes, sha256=told.hexdigest())
    return Images(pixels, labels, names, report, report.source)
