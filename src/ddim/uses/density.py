"""How likely items are under a model: log-densities along its flow, and of a walk of S steps.

The law is that of what the flow makes of the noise a walk starts from, N(0, start^2) at T. Where x_T still holds signal
that law is not quite the data's, by about signal_T times mean times x_T / noise_T nats a dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ddim.denoise import NONE, Conditions, Denoiser, bound, labels
from ddim.process import as_rows, generator
from ddim.refused import Refused
from ddim.solve import DDIM, Field, integrated, trajectory
from ddim.uses.roads import work

MOST_EXACT = 1024  # dimensions of an exact trace: it takes a gradient each, at every evaluation
PILOT, MOST_PROBES = 8, 4096  # of one item: fewer than 8 know too little of a skew law's spread (92 % covered, not 95)
NORMAL = 1.959964  # 97.5 % quantile


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log-densities of items.

    Attributes:
        log_prob: in nats, (B,), float64.
        standard_error: of the estimate of the trace, (B,): log_prob +- 1.96 of it covers that of the exact trace for
            95 % of probes (Student's t for few probes is in it); 0 where the trace is exact.
        calls: network calls of the item that took most; each with a gradient a probe, or one a dimension.
        probes: that every item took, (B,) int64; 0 is the exact trace.
    """

    log_prob: Tensor
    standard_error: Tensor
    calls: int
    probes: Tensor


def likelihood(
    denoise: Denoiser,
    x: Tensor,
    *,
    tolerance: float = 1e-5,
    probes: int | None = None,
    error: float | None = None,
    seeds: Sequence[int] | None = None,
    label: Tensor | None = None,
    conditions: Conditions = NONE,
) -> Likelihood:
    """log p(x) along the flow d(x/signal)/d(noise/signal) = eps of any process (arXiv 2011.13456, eq. 39; 1810.01367).

    log p(x) = log N(u_T) + int tr(d slope/du) dphi, for the state and the clock of `field`, by an adaptive Runge-Kutta
    pair with a step size of its own for every item. Below the cleanest time a network is asked at, its score is held;
    between the whole times of a `Schedule` the slope is interpolated.

    Args:
        denoise: the denoiser; nothing in it may clip or guide.
        x: items at the clean end, (B, *); discrete values have to be dequantised by the caller.
        tolerance: largest error of a step, of the state's root mean square and of the trace's sum a dimension.
        probes: vectors of +-1 to estimate the trace by (Hutchinson), 2 or more; None takes the exact trace, with a
            gradient for each dimension.
        error: the largest `standard_error`, in nats. `probes`, at least `PILOT`, then measure how far estimates of an
            item's trace spread, and it takes twice as many until that many are enough (two stages: Stein, Ann. Math.
            Statist. 16, 1945, whose interval holds); the exact trace where that takes no more gradients.
        seeds: of the probes, one an item; default 0..B-1. Item i depends on x[i] and seeds[i] alone.
        label, conditions: handed to the network at every call.

    Gradients are taken with respect to x alone; no graph is kept and none is returned.

    Raises:
        Refused: a clip, a threshold or guidance; a tolerance outside (0, 1); fewer than 2 probes; an exact trace in
            more than `MOST_EXACT` dimensions; an error that takes more than `MOST_PROBES`; a denoiser without
            gradients; a flow the tolerance cannot follow.
    """
    _refuse_changed(denoise)
    if not 0.0 < tolerance < 1.0:
        raise Refused(f"`tolerance` must lie between 0 and 1, got {tolerance}")
    if error is not None and (probes is None or not 0.0 < error < math.inf):
        raise Refused(f"`error` must be above 0 and is of estimates, by `probes`; got {error} and {probes} probes")
    u = as_rows(work(x))
    if error is not None and probes is not None:
        pilot = max(probes, PILOT)
        probes = pilot if u.shape[1] > pilot else None
    flow = _Flow(Field(bound(denoise, conditions | labels(label)), tuple(x.shape[1:])), tolerance)
    seeds = range(len(u)) if seeds is None else seeds
    if len(seeds) != len(u):
        raise Refused(f"{len(u)} items need {len(u)} seeds, got {len(seeds)}")
    each, calls = flow.each(u, _probes(probes, seeds, u))
    mean, spread = each.mean(1), _standard_error(each)
    taken = torch.full((len(u),), probes or 0)
    if error is not None and probes is not None:
        wanted = _enough(spread, probes, error, u.shape[1])
        for n in sorted({*wanted.tolist()} - {probes}):
            rows = torch.nonzero(wanted == n).flatten()
            part = replace(flow, field=replace(flow.field, denoise=flow.field.denoise.rows(rows)))
            more = None if n == 0 else _probes(n - probes, [seeds[i] for i in rows.tolist()], u, "more trace probes")
            own, extra = part.each(u[rows], more)
            mean[rows] = own.mean(1) if n == 0 else (probes * mean[rows] + (n - probes) * own.mean(1)) / n
            spread[rows] *= math.sqrt(probes / n) if n else 0.0
            taken[rows], calls[rows] = n, calls[rows] + extra
    return Likelihood(mean, spread, int(calls.max()) if len(x) else 0, taken)


@dataclass(frozen=True)
class _Flow:
    """The flow as `integrated` to a tolerance."""

    field: Field
    tolerance: float

    def each(self, u: Tensor, vectors: Tensor | None) -> tuple[Tensor, Tensor]:
        """log p of u (B, d) by every probe, (B, P), or by the exact trace, (B, 1); network calls (B,)."""
        field, d = self.field, u.shape[1]

        def slope(y: Tensor, phi: Tensor, rows: Tensor) -> Tensor:
            return field.traced(y[:, :d], phi, rows, None if vectors is None else vectors[rows])

        def size(error: Tensor) -> Tensor:
            return torch.maximum(error[:, :d].square().mean(1).sqrt(), error[:, d:].abs().amax(1) / d)

        y = torch.cat([u, u.new_zeros(len(u), 1 if vectors is None else vectors.shape[1])], 1)
        end, evaluations = integrated(slope, y, 0.0, field.stop, self.tolerance, size)
        process = field.denoise.process
        std = process.start(process.T) / math.hypot(*process.at(process.T))
        return _log_normal(end[:, :d], std)[:, None] + end[:, d:], evaluations * field.calls


def _enough(spread: Tensor, probes: int, error: float, d: int) -> Tensor:
    """How many probes, `probes` times a power of 2, bring each standard error of so many to `error`; 0: exact, d < n.

    Raises:
        Refused: more than `MOST_PROBES`.
    """
    doublings = torch.ceil(2.0 * torch.log2(spread / error)).clamp(min=0).nan_to_num(64.0).cpu()
    n = torch.where(doublings < 32, probes * 2.0 ** doublings.clamp(max=32), torch.inf)
    exact = (n >= d) & (n > probes) if d <= MOST_EXACT else torch.zeros_like(n, dtype=torch.bool)
    worst = float(n[~exact].max()) if bool((~exact).any()) else 0.0
    if worst > MOST_PROBES:
        raise Refused(f"an error of {error:g} nats takes more than {MOST_PROBES} probes an item; raise `error`")
    return torch.where(exact, 0, n).long()


def walk_density(
    denoise: Denoiser,
    x_T: Tensor,
    tau: Sequence[Any],
    *,
    label: Tensor | None = None,
    conditions: Conditions = NONE,
) -> tuple[Tensor, Tensor]:
    """The items that DDIM (eta = 0) on tau makes of latents, (B, *), and their exact log-densities in nats, (B,).

    log p(x_0) = log N(x_T) - sum log |det d x_s / d x_t| over the S steps of the walk: of small dimensions, as every
    step takes a gradient for each.

    Raises:
        Refused: as `likelihood` and `trajectory`.
    """
    _refuse_changed(denoise)
    if x_T[0].numel() > MOST_EXACT:
        raise Refused(f"items of {x_T[0].numel()} dimensions: the exact determinant is for at most {MOST_EXACT}")
    x, denoise = work(x_T), bound(denoise, conditions | labels(label))
    log_prob = _log_normal(as_rows(x), denoise.process.start(tau[0]))
    for pair in pairwise(tau):
        at = x.detach().requires_grad_()
        with torch.enable_grad():
            (step,) = trajectory(denoise, DDIM(), pair, at)
            flat = as_rows(step.x)
            rows = [torch.autograd.grad(flat[:, j].sum(), at, retain_graph=True)[0] for j in range(flat.shape[1])]
        log_prob = log_prob - torch.linalg.slogdet(torch.stack([as_rows(row) for row in rows], 1)).logabsdet
        x = step.x.detach()
    return x.to(x_T.dtype), log_prob


def _refuse_changed(denoise: Denoiser) -> None:
    if not denoise.one_law:
        kind = type(denoise).__name__
        raise Refused(
            f"{kind} changes what the network says into what is no law's score: a clip loses images, and a mix of two "
            "scores is not that of one noised law; take the likelihood without clip and guidance"
        )


def _probes(probes: int | None, seeds: Sequence[int], u: Tensor, purpose: str = "trace probe") -> Tensor | None:
    """(B, P, d) of -1 and 1, or None for the exact trace."""
    d = u.shape[1]
    if probes is None:
        if d > MOST_EXACT:
            raise Refused(f"the exact trace of {d} dimensions takes {d} gradients a call; estimate it: `probes` = 16")
        return None
    if probes < 2:
        raise Refused(f"`probes` must be at least 2, for one estimate has no error of its own; got {probes}")
    rows = [2.0 * generator(seed, purpose).integers(0, 2, (probes, d)) - 1.0 for seed in seeds]
    return torch.stack([torch.from_numpy(row) for row in rows]).to(u) if rows else u.new_zeros(0, probes, d)


def _log_normal(u: Tensor, std: float) -> Tensor:
    return -0.5 * (u / std).square().sum(1) - u.shape[1] * math.log(std * math.sqrt(2 * math.pi))


def _standard_error(each: Tensor) -> Tensor:
    """Of the mean over P estimates (B, P); widened by Student's t of P - 1 over the normal's quantile."""
    P = each.shape[1]
    if P == 1:
        return each.new_zeros(len(each))
    return each.std(1) / math.sqrt(P) * (_student(P - 1) / NORMAL)


def _student(n: int) -> float:
    """97.5 % quantile of Student's t with n degrees of freedom: exact for 1 and 2, else Abramowitz & Stegun 26.7.5."""
    if n <= 2:
        return math.tan(math.pi * 0.475) if n == 1 else 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    z = NORMAL
    g1, g2 = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / n + g2 / n**2 + g3 / n**3
