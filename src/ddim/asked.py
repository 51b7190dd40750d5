"""What was asked for, made definite: n, seed, seeds and latents become a list of seeds, or a clear refusal."""

from __future__ import annotations

from collections.abc import Sequence

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
