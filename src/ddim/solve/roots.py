"""Roots of many small systems at once, each row its own problem: Anderson acceleration, then Newton-Krylov.

The function is dear (a network) and known only through calls, so nothing here differentiates: Anderson mixes
past calls, Newton-Krylov takes directional derivatives by differences. A row that has converged is never
evaluated again, and no row sees another.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Residual = Callable[[Tensor, Tensor], Tensor]
"""(u[rows], rows) -> f(u)[rows]; u (R, D), rows int64 (R,). A root is f = 0; u + f is the fixed-point iterate."""


@dataclass
class Search:
    """Where a search stands: the best point of every row, its residual, the calls it took.

    Attributes:
        u: best points, (B, D).
        f: the function there, (B, D).
        error: max |f| of every row there, (B,).
        calls: evaluations every row has cost, int64 (B,).
    """

    u: Tensor
    f: Tensor
    error: Tensor
    calls: Tensor

    def open_rows(self, tolerance: float) -> Tensor:
        """The rows still above the tolerance, int64."""
        return torch.nonzero(~(self.error <= tolerance)).flatten()

    def offer(self, rows: Tensor, u: Tensor, f: Tensor) -> Tensor:
        """Keep what is better than the best so far; which of the rows were (R,)."""
        error = f.abs().amax(1)
        better = error < self.error[rows]
        kept = rows[better]
        self.u[kept], self.f[kept], self.error[kept] = u[better], f[better], error[better]
        return better


def begin(residual: Residual, u: Tensor) -> Search:
    """The first evaluation, at the guess u (B, D)."""
    f = residual(u, torch.arange(len(u), device=u.device))
    calls = torch.ones(len(u), dtype=torch.int64, device=u.device)
    return Search(u.clone(), f, f.abs().amax(1).nan_to_num(torch.inf), calls)


def anderson(residual: Residual, search: Search, *, tolerance: float, calls: int, memory: int) -> None:
    """Up to `calls` evaluations of Anderson's mixing (type II; Walker & Ni 2011, algorithm AA), from search.u.

    A row whose residual grows fourfold over its best goes back there and forgets its history.
    """
    batch = len(search.u)
    us, fs = [search.u.clone()], [search.f.clone()]
    fresh = torch.zeros(batch, dtype=torch.int64, device=search.u.device)  # how much history each row may use
    for _ in range(calls):
        rows = search.open_rows(tolerance)
        if not len(rows):
            return
        u = us[-1].clone()
        u[rows] = _mixed([v[rows] for v in us], [v[rows] for v in fs], fresh[rows])
        f = fs[-1].clone()
        f[rows] = residual(u[rows], rows)
        search.calls[rows] += 1
        search.offer(rows, u[rows], f[rows])
        fresh[rows] += 1
        astray = rows[~(f[rows].abs().amax(1) <= 4 * search.error[rows])]
        u[astray], f[astray], fresh[astray] = search.u[astray], search.f[astray], 0
        us, fs = [*us[-memory:], u], [*fs[-memory:], f]


def _mixed(us: list[Tensor], fs: list[Tensor], fresh: Tensor) -> Tensor:
    """The next iterate of rows that may look back `fresh` steps each."""
    u, f = us[-1], fs[-1]
    back = len(us) - 1
    if back == 0:
        return u + f
    du = torch.stack([b - a for a, b in itertools.pairwise(us)], 2)  # (R, D, back)
    df = torch.stack([b - a for a, b in itertools.pairwise(fs)], 2)
    usable = torch.arange(back, 0, -1, device=u.device) <= fresh[:, None]  # the newest difference is the last
    du, df = du * usable[:, None], df * usable[:, None]
    weights = _least_squares(df, f)
    return u + f - ((du + df) @ weights[..., None])[..., 0]


def _least_squares(columns: Tensor, target: Tensor) -> Tensor:
    """argmin |columns w - target| of every row, columns (R, D, k), a little regularised: (R, k)."""
    scale = columns.square().sum(1).sqrt()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # unused columns are zero and get weight 0
    unit = columns / scale[:, None]
    gram = unit.transpose(1, 2) @ unit
    gram = gram + 1e-12 * torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
    gram = gram + torch.diag_embed((gram.diagonal(dim1=1, dim2=2) < 0.5).to(gram))
    right = (unit.transpose(1, 2) @ target[..., None])[..., 0]
    solution: Tensor = torch.linalg.solve(gram, right)
    return solution / scale


def newton_krylov(
    residual: Residual, search: Search, *, tolerance: float, rounds: int, krylov: int, difference: float
) -> None:
    """Up to `rounds` Newton steps from search.u, each by GMRES of `krylov` directions and a halving line search.

    Args:
        difference: root mean square size of the difference that stands for a derivative; well above the
            function's rounding noise.

    A row leaves when it has converged, or when no step along its Newton direction makes it better.
    """
    stuck = torch.zeros(len(search.u), dtype=torch.bool, device=search.u.device)
    for _ in range(rounds):
        rows = search.open_rows(tolerance)
        rows = rows[~stuck[rows] & torch.isfinite(search.error[rows])]
        if not len(rows):
            return
        step = _gmres(residual, search, rows, krylov, difference)
        length, left = 1.0, torch.arange(len(rows), device=rows.device)
        base_u, base = search.u[rows].clone(), search.f[rows].square().sum(1)
        while len(left) and length > 1e-2:
            u = base_u[left] + length * step[left]
            f = residual(u, rows[left])
            search.calls[rows[left]] += 1
            fell = f.square().sum(1) < (1 - 0.2 * length) * base[left]
            done = rows[left][fell]
            search.u[done], search.f[done], search.error[done] = u[fell], f[fell], f[fell].abs().amax(1)
            left, length = left[~fell], length / 2
        stuck[rows[left]] = True


def _gmres(residual: Residual, search: Search, rows: Tensor, krylov: int, difference: float) -> Tensor:
    """d with J d close to -f, from a Krylov space of `krylov` finite differences; (R, D)."""
    u, f = search.u[rows], search.f[rows]
    size = difference * u.shape[1] ** 0.5
    norm = f.norm(dim=1, keepdim=True).clamp(min=torch.finfo(f.dtype).tiny)
    basis, images = [-f / norm], []
    for _ in range(krylov):
        v = basis[-1]
        image = (residual(u + size * v, rows) - f) / size
        search.calls[rows] += 1
        images.append(image)
        w = image
        for q in (*basis, *basis):  # Gram-Schmidt, twice: differences are noisy
            w = w - (w * q).sum(1, keepdim=True) * q
        length = w.norm(dim=1, keepdim=True)
        basis.append(w / length.clamp(min=torch.finfo(f.dtype).tiny))
    weights = _least_squares(torch.stack(images, 2), -f)
    return (torch.stack(basis[:-1], 2) @ weights[..., None])[..., 0]
