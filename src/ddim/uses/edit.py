"""Edits of real images with a model that was never trained for them: by strength, mask, label or direction.

All of them are walks on one tau. What an edit keeps is exact: strength 0 is the image, an empty mask changes
nothing, kept pixels come back bit for bit, a full mask is plain sampling.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor

from ddim.denoise import NONE, Conditions, Denoiser, bound
from ddim.process import STEP, as_rows, noise
from ddim.refused import Refused
from ddim.solve import DDIM, end_of, sample, step_noise, trajectory
from ddim.uses.invert import encode
from ddim.uses.roads import Method

EDIT = "edit"  # purposes of noise
KNOWN = "inpaint-known"
AGAIN = "inpaint-again"


def partial_tau(tau: Sequence[Any], strength: float, T: Any) -> tuple[Any, ...]:
    """The part of tau at or below strength * T: where an edit of that strength starts; (0,) when nothing is left.

    Raises:
        Refused: strength outside 0..1.
    """
    if not 0.0 <= strength <= 1.0:
        raise Refused(f"strength must lie in 0..1 (0 keeps the image, 1 ignores it), got {strength}")
    return tuple(t for t in tau if t <= strength * T)


@torch.no_grad()
def by_strength(
    denoise: Denoiser,
    x_0: Tensor,
    tau: Sequence[Any],
    strength: float,
    *,
    seeds: Sequence[int],
    eta: float = 0.0,
    conditions: Conditions = NONE,
) -> Tensor:
    """SDEdit (arXiv 2108.01073): noise the images part of the way, then denoise.

    Args:
        x_0: images (B, *), possibly rough ones.
        strength: how far, as a share of T: the walk starts at the highest time of tau not above strength * T.
            0 returns the images; when it reaches tau[0] = T it starts from pure noise and ignores them.
        seeds: one an image, for the noise added and, with eta above 0, injected.

    Raises:
        Refused: strength outside 0..1; not one seed an image.
    """
    if len(seeds) != len(x_0):
        raise Refused(f"{len(x_0)} images need {len(x_0)} seeds, got {len(seeds)}")
    times = partial_tau(tau, strength, denoise.process.T)
    if len(times) < 2:
        return x_0.clone()
    if times[0] == denoise.process.T:
        x_t = _pure(denoise, seeds, x_0, times[0])
    else:
        at = denoise.process.at(times[0])
        z = noise(seeds, x_0.shape[1:], purpose=EDIT, dtype=x_0.dtype, device=x_0.device)
        x_t = at.signal * x_0 + at.noise * z
    return sample(denoise, x_t, times, solver=DDIM(eta=eta), seeds=seeds, conditions=conditions)


@torch.no_grad()
def by_label(
    denoise: Denoiser,
    x_0: Tensor,
    tau: Sequence[Any],
    *,
    source: Tensor | None,
    target: Tensor,
    strength: float = 1.0,
    guided: Denoiser | None = None,
    method: Method = "implicit",
) -> Tensor:
    """Encode under one label, decode under another: what is not the class (slant, width) stays.

    Args:
        denoise: a conditional denoiser; encodes.
        x_0: images (B, *).
        source, target: labels, int64 (B,); source None encodes without a label.
        strength: how far up to encode; less keeps more of the image.
        guided: the denoiser that decodes, for instance `Guided(denoise, 3.0, null_label)`; default `denoise`.
        method: see `encode`.
    """
    times = partial_tau(tau, strength, denoise.process.T)
    if len(times) < 2:
        return x_0.clone()
    latents = encode(denoise, x_0, times, method, label=source)
    return sample(denoise if guided is None else guided, latents.x_T, times, label=target)


def direction(without: Tensor, having: Tensor) -> Tensor:
    """The mean latent of the images that have an attribute minus that of those without: (*), from (A, *), (B, *)."""
    return torch.as_tensor(having[:]).mean(0) - torch.as_tensor(without[:]).mean(0)


def along(x_T: Tensor, towards: Tensor, amount: float) -> Tensor:
    """x_T + amount * towards, each latent brought back to its own norm (the shell that latents live on).

    Args:
        x_T: latents (B, *).
        towards: a direction (*), from `direction`.
        amount: 0 changes nothing; 1 is the difference between the two means.

    Raises:
        Refused: an amount that is not finite.
    """
    if not isfinite(amount):
        raise Refused(f"`amount` must be finite, got {amount}; 1 is the difference of the two means")
    moved = x_T + amount * towards.to(x_T)
    shape = (-1, *([1] * (x_T.ndim - 1)))
    before, after = as_rows(x_T).norm(dim=1), as_rows(moved).norm(dim=1)
    return moved * (before / after.clamp(min=torch.finfo(x_T.dtype).tiny)).view(shape) if amount else x_T.clone()


@torch.no_grad()
def inpaint(
    denoise: Denoiser,
    x_0: Tensor,
    mask: Tensor,
    tau: Sequence[Any],
    *,
    seeds: Sequence[int],
    eta: float = 1.0,
    resample: int = 5,
    jump: int = 1,
    conditions: Conditions = NONE,
) -> Tensor:
    """RePaint (arXiv 2201.09865, algorithm 1) on any tau: make the masked part anew, in harmony with the rest.

    On every step the kept part is the image noised to that level. Each stretch of `jump` steps is walked
    `resample` times, noised back in between by q(x_t | x_s), so that both parts come to agree.

    Args:
        x_0: images (B, *).
        mask: true (or 1) where to paint, else false (or 0); (H, W) as the images, or more dimensions that broadcast.
        seeds: one an image; everything random depends on them alone.
        eta: of the sampling steps; the paper samples with DDPM, that is 1.
        resample, jump: U and the jump length of the paper; NFE is steps * resample.

    An image whose mask is empty is returned as it is; one whose mask is full is plain `sample`.

    Raises:
        Refused: resample or jump below 1; not one seed an image; a mask that does not fit.
    """
    if resample < 1 or jump < 1:
        raise Refused(f"resample and jump must be at least 1, got {resample} and {jump}")
    if len(seeds) != len(x_0):
        raise Refused(f"{len(x_0)} images need {len(x_0)} seeds, got {len(seeds)}")
    paint = _painted(mask.to(x_0.device), x_0)
    denoise = bound(denoise, conditions)
    full, some = as_rows(paint).all(1), as_rows(paint).any(1)
    out = x_0.clone()
    for chosen, again in ((full, 1), (some & ~full, resample)):
        rows = torch.nonzero(chosen).flatten()
        if len(rows):
            own = [seeds[i] for i in rows.tolist()]
            part = denoise.rows(rows)  # an image whose mask is empty takes its conditions with it
            out[rows] = _repaint(part, x_0[rows], paint[rows], tau, own, eta, again, jump)
    return out


def _painted(mask: Tensor, x_0: Tensor) -> Tensor:
    """The mask as true and false, in the images' shape."""
    last = min(mask.ndim, x_0.ndim - 1, 2)
    if not last or mask.shape[-last:] != x_0.shape[-last:] or (last < 2 and x_0.ndim > 2):
        raise Refused(f"a mask {tuple(mask.shape)} does not fit images {tuple(x_0.shape)}")
    if mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all()):
        raise Refused("a mask holds true (1) where to paint and false (0) elsewhere, nothing between")
    try:
        return mask.bool().expand(x_0.shape)
    except RuntimeError:
        raise Refused(f"a mask {tuple(mask.shape)} does not fit images {tuple(x_0.shape)}") from None


def _repaint(
    denoise: Denoiser,
    x_0: Tensor,
    paint: Tensor,
    tau: Sequence[Any],
    seeds: Sequence[int],
    eta: float,
    resample: int,
    jump: int,
) -> Tensor:
    process, solver, visits = denoise.process, DDIM(eta=eta), itertools.count()
    draw = _noise_like(x_0, seeds)
    x = _pure(denoise, seeds, x_0, tau[0])
    first = step_noise(seeds, x_0)
    for i in range(0, len(tau) - 1, jump):
        stretch = tau[i : i + jump + 1]
        for turn in range(resample):
            if turn:  # q(x_t | x_s) back up to the stretch's start, in one move
                at_t, at_s = process.at(stretch[0]), process.at(stretch[-1])
                keep = at_t.signal / at_s.signal
                x = keep * x + sqrt(max(0.0, at_t.noise**2 - (keep * at_s.noise) ** 2)) * draw(AGAIN, next(visits))
            for t, s in itertools.pairwise(stretch):
                step = first if turn == 0 else _turned(draw, turn)
                made = end_of(trajectory(denoise, solver, (t, s), x, step))
                at_s = process.at(s)
                known = at_s.signal * x_0 + at_s.noise * draw(KNOWN, next(visits)) if s else x_0
                x = torch.where(paint, made, known)
    return x


def _pure(denoise: Denoiser, seeds: Sequence[int], like: Tensor, t: Any) -> Tensor:
    """The pure noise a walk from t begins with."""
    x = noise(seeds, like.shape[1:], dtype=like.dtype, device=like.device)
    start = denoise.process.start(t)
    return x if start == 1.0 else start * x


def _noise_like(x: Tensor, seeds: Sequence[int]) -> Callable[[str, Any], Tensor]:
    return lambda purpose, step: noise(seeds, x.shape[1:], purpose=purpose, step=step, dtype=x.dtype, device=x.device)


def _turned(draw: Callable[[str, Any], Tensor], turn: int) -> Callable[[Any], Tensor]:
    """Step noise of a later turn: of its own, or every turn would repeat the first."""
    return lambda t: draw(f"{STEP}/turn-{turn}", t)
