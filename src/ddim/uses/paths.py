"""Paths between latents. What lies between two latents must be a likely latent too, or the image fades.

In d dimensions N(0, I) lives on a thin shell of radius sqrt(d). The straight line between two independent
latents leaves it: at the middle the norm is 0.707 of what it was (23 standard deviations off the shell at
d = 3072), and the model paints the washed-out picture such a latent means. `slerp` stays on the shell;
`vp_lerp` is exactly N(0, I) for independent ends; `lerp` is here to show the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ddim.denoise import NONE, Conditions, Denoiser
from ddim.process import diffuse, noise
from ddim.refused import Refused
from ddim.solve import DDIM, sample

PathRule = Callable[..., Tensor]
"""(a, b, u, batched=...) -> the point at u between a (u = 0) and b (u = 1)."""

STRAIGHT = 1e-4  # below this angle sin(k angle)/sin(angle) is k to 1e-9: the straight line
OPPOSITE = 1e-3  # closer than this to pi the arc is not defined: every great circle is as short


def slerp(a: Tensor, b: Tensor, u: float | Tensor, *, batched: bool | None = None) -> Tensor:
    """sin((1-u) theta)/sin(theta) a + sin(u theta)/sin(theta) b, theta the angle between a and b (DDIM eq. 67).

    Args:
        a, b: two items (*), or two batches (B, *) whose images each have an angle of their own.
        u: a number, or (n,) for n points stacked in front: (n, *) or (n, B, *). 0 gives a, 1 gives b.
        batched: whether the first dimension counts images; default: when there are four or more dimensions.

    Norms are kept when a and b have the same norm. Nearly equal directions fall back to the straight line.

    Raises:
        Refused: different shapes; a zero item; opposite items, between which no arc is the shortest.
    """
    x, y, weight = _prepared(a, b, u, batched)
    length_x, length_y = x.norm(dim=-1, keepdim=True), y.norm(dim=-1, keepdim=True)
    if not bool((length_x > 0).all() and (length_y > 0).all()):
        raise Refused("slerp needs items that are not zero: a zero item has no direction")
    x_unit, y_unit = x / length_x, y / length_y
    # of both half-chords: exact near 0 and pi, where acos of the dot product is NaN or coarse
    angle = 2 * torch.atan2((x_unit - y_unit).norm(dim=-1, keepdim=True), (x_unit + y_unit).norm(dim=-1, keepdim=True))
    if bool((torch.pi - angle < OPPOSITE).any()):
        raise Refused(
            f"slerp between opposite items (angle {float(angle.max()):.6f}, pi is 3.141593) has no shortest arc; "
            "go through a third point"
        )
    bent = angle > STRAIGHT
    safe = torch.where(bent, angle, torch.ones_like(angle))
    weight_x = torch.where(bent, torch.sin((1 - weight) * safe) / torch.sin(safe), 1 - weight)
    weight_y = torch.where(bent, torch.sin(weight * safe) / torch.sin(safe), weight)
    return _finished(weight_x * x + weight_y * y, a, u)


def vp_lerp(a: Tensor, b: Tensor, u: float | Tensor, *, batched: bool | None = None) -> Tensor:
    """((1-u) a + u b) / sqrt((1-u)^2 + u^2): exactly N(0, I) at every u when a and b are independent N(0, I).

    Arguments and result as in `slerp`; needs no angle. For dependent a and b the norm is not kept: a = b gives
    sqrt(2) a in the middle.
    """
    x, y, weight = _prepared(a, b, u, batched)
    return _finished(((1 - weight) * x + weight * y) / ((1 - weight) ** 2 + weight**2).sqrt(), a, u)


def lerp(a: Tensor, b: Tensor, u: float | Tensor, *, batched: bool | None = None) -> Tensor:
    """(1-u) a + u b: the straight line, which loses norm (0.707 at the middle of independent latents).

    Arguments and result as in `slerp`. For latents it is the wrong path; see the module's text.
    """
    x, y, weight = _prepared(a, b, u, batched)
    return _finished((1 - weight) * x + weight * y, a, u)


RULES: dict[str, PathRule] = {"slerp": slerp, "vp": vp_lerp, "linear": lerp}


def rule_named(name: str) -> PathRule:
    """slerp, vp or linear.

    Raises:
        Refused: any other name.
    """
    if name not in RULES:
        raise Refused(f"unknown path {name!r}; choose one of {', '.join(RULES)}")
    return RULES[name]


def path(points: Sequence[Tensor], frames: int, rule: PathRule = slerp) -> Tensor:
    """`frames` points along a path through two or more items (*), both ends included: (frames, *).

    Frames are spread evenly over the whole path; inner points are met exactly when frames - 1 is a multiple of
    the number of legs.

    Raises:
        Refused: fewer than 2 points or frames.
    """
    if len(points) < 2 or frames < 2:
        raise Refused(f"a path needs at least 2 points and 2 frames, got {len(points)} and {frames}")
    legs = len(points) - 1
    found = []
    for i in range(frames):
        leg, part = divmod(i * legs, frames - 1)
        if leg == legs:
            leg, part = legs - 1, frames - 1
        found.append(rule(points[leg], points[leg + 1], part / (frames - 1), batched=False))
    return torch.stack(found)


def path_grid(corners: Sequence[Tensor], rows: int, columns: int, rule: PathRule = slerp) -> Tensor:
    """Items (*) between four corners (top left, top right, bottom left, bottom right): (rows, columns, *).

    A path of paths: down both sides first, then across (DDIM appendix D.5).

    Raises:
        Refused: not four corners; fewer than 2 rows or columns.
    """
    if len(corners) != 4:
        raise Refused(f"a grid needs 4 corners, got {len(corners)}")
    left, right = path([corners[0], corners[2]], rows, rule), path([corners[1], corners[3]], rows, rule)
    return torch.stack([path([a, b], columns, rule) for a, b in zip(left, right, strict=True)])


def ddpm_interpolation(
    denoise: Denoiser,
    x_a: Tensor,
    x_b: Tensor,
    u: Tensor,
    tau: Sequence[Any],
    *,
    seed: int,
    conditions: Conditions = NONE,
) -> Tensor:
    """DDPM's stochastic interpolation (arXiv 2006.11239, section 4.3), the contrast to a path of latents.

    Both images are noised to t = tau[0], mixed in a straight line there and denoised with eta = 1; all random
    numbers are the same for every u, as in that paper.

    Args:
        x_a, x_b: two images (*).
        u: (n,) numbers in 0..1.
        tau: falling times from the noise level to mix at; lower starts keep more of the images.

    Returns:
        (n, *) images.
    """
    times = torch.tensor([tau[0]], dtype=torch.int64 if denoise.process.discrete else torch.float64)
    mixed = []
    for x, purpose in ((x_a, "interpolate-a"), (x_b, "interpolate-b")):
        eps = noise([seed], x.shape, purpose=purpose, dtype=x.dtype, device=x.device)
        mixed.append(diffuse(x[None], eps, times, denoise.process)[0])
    start = lerp(mixed[0], mixed[1], u, batched=False)
    return sample(denoise, start, tau, solver=DDIM(eta=1.0), seeds=[seed] * len(start), conditions=conditions)


def _prepared(a: Tensor, b: Tensor, u: float | Tensor, batched: bool | None) -> tuple[Tensor, Tensor, Tensor]:
    """Both as (B, D) float64 rows (float32 where there is no float64), and u as (n, 1, 1)."""
    a, b = torch.as_tensor(a), torch.as_tensor(b)
    if a.shape != b.shape:
        raise Refused(f"a path needs two items of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    rows = len(a) if (a.ndim >= 4 if batched is None else batched) else 1
    dtype = torch.float32 if a.device.type == "mps" else torch.float64
    weight = torch.as_tensor(u, dtype=dtype, device=a.device)
    if weight.ndim > 1:
        raise Refused(f"u is a number or one row of numbers, got shape {tuple(weight.shape)}")
    return a.reshape(rows, -1).to(dtype), b.reshape(rows, -1).to(dtype), weight.reshape(-1, 1, 1)


def _finished(points: Tensor, a: Tensor, u: float | Tensor) -> Tensor:
    stacked = isinstance(u, Tensor) and u.ndim == 1
    return points.reshape(*(points.shape[:1] if stacked else ()), *a.shape).to(a.dtype)
