"""What was asked for, made definite: seeds and labels, one an image, or a clear refusal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def seeds_of(
    n: int | None, seed: int, seeds: Sequence[int] | None, latents: Tensor | None, shape: Sequence[int]
) -> list[int]:
    """One seed an image: seed..seed+n-1, or those given; with latents, one a latent.

    Args:
        n, seed: how many images, and the first seed; or `seeds` themselves.
        latents: x_T (n, C, H, W) to start from, or None.
        shape: (C, H, W) that the model makes.

    Raises:
        ValueError: n and seeds together, none of either, or latents of another number or shape.
    """
    if n is not None and seeds is not None:
        raise ValueError("give n (with seed) or seeds, not both")
    if seeds is not None and seed:
        raise ValueError(f"seed = {seed} counts from one seed up, and seeds names them all: give one of them")
    if latents is not None:
        if tuple(latents.shape[1:]) != tuple(shape):
            raise ValueError(f"latents are {tuple(latents.shape[1:])} each, but this model makes {tuple(shape)}")
        n = len(latents) if n is None and seeds is None else n
    if seeds is None:
        if n is None or n < 1:
            raise ValueError(f"ask for at least one image: n = {n}")
        seeds = range(seed, seed + n)
    seeds = list(seeds)
    if not seeds:
        raise ValueError("seeds is empty: ask for at least one image")
    if latents is not None and len(latents) != len(seeds):
        raise ValueError(f"{len(latents)} latents, but {len(seeds)} seeds or n")
    return seeds


def labels_of(
    label: int | Sequence[int] | Tensor | None, n: int, num_classes: int | None, null_label: int | None
) -> Tensor | None:
    """One class an image, int64 (n,), or None for an unconditional network or the null label.

    Raises:
        ValueError: a label where there are no classes, outside 0..K-1, or not one an image; none where one is needed.
    """
    if label is None:
        if num_classes is not None and null_label is None:
            raise ValueError(f"this model knows only classes 0..{num_classes - 1}; give a label")
        return None
    if num_classes is None:
        raise ValueError(f"label = {label} was asked for, but this model was trained without classes")
    given = torch.as_tensor(label, device="cpu").flatten()
    values = given.to(torch.int64)
    if bool((values != given).any()):
        raise ValueError(f"classes are whole numbers, got {label}")
    if len(values) not in (1, n):
        raise ValueError(f"{n} images need 1 label or {n}, got {len(values)}")
    if int(values.min()) < 0 or int(values.max()) >= num_classes:
        bad = int(values[(values < 0) | (values >= num_classes)][0])
        raise ValueError(f"label {bad} is outside 0..{num_classes - 1}, the classes this model knows")
    return values.expand(n).clone()
