"""An ordinary differential equation with error control, where every row of a batch has a step size of its own.

The pair of formulas is Dormand and Prince's 5(4) (J. Comput. Appl. Math. 6, 1980, table 2). It is written out here
because the libraries (SciPy, torchdiffeq) take one step and one error for a whole batch, so that an image's number
would depend on its neighbours, and nothing here may: row i is a function of row i alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddim.refused import Refused

Slope = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(y (R, n), t (R,), which rows of the batch these are (R,)) -> dy/dt (R, n)."""

NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    # the fifth-order result; its slope begins the next step
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
FIRST = 0.01  # of the whole way: the first step tried
LEAST = 1e-12  # of the whole way: a step below which nothing more can be had
MOST = 20_000  # steps tried
SAFETY, SHRINK, GROW = 0.9, 0.2, 5.0


def integrated(
    slope: Slope, y: Tensor, start: float, stop: float, tolerance: float, size: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """y at `stop` from y (B, n) at `start`, start < stop, and the evaluations of the slope each row took, (B,).

    Args:
        slope: dy/dt of some of the rows, each at its own t.
        size: an error (R, n) of a step -> how large it is (R,): a step is taken where that is at most `tolerance`.

    Raises:
        Refused: a row whose error stays above the tolerance however small the step.
    """
    rows = torch.arange(len(y), device=y.device)
    out, calls = y.clone(), torch.zeros(len(y), dtype=torch.int64)
    t = torch.full((len(y),), start, dtype=torch.float64, device=y.device)
    h = torch.full_like(t, FIRST * (stop - start))
    k = slope(y, t, rows)
    calls += 1
    for _ in range(MOST):
        if not len(rows):
            return out, calls
        last = h >= stop - t
        h = torch.where(last, stop - t, h)
        new, error, ends = _step(slope, y, t, h, rows, k)
        calls[rows.cpu()] += len(NODES)
        found = size(error)
        taken = found <= tolerance
        if bool((~taken & (h < LEAST * (stop - start))).any()):
            break
        grown = SAFETY * (tolerance / found.clamp(min=1e-300)) ** 0.2
        y, k = torch.where(taken[:, None], new, y), torch.where(taken[:, None], ends, k)
        t = torch.where(taken, t + h, t)
        h = h * torch.where(torch.isfinite(found), grown.clamp(SHRINK, GROW), torch.full_like(h, SHRINK))
        done = taken & last
        out[rows[done]] = y[done]
        y, k, t, h, rows = (v[~done] for v in (y, k, t, h, rows))
    raise Refused(f"the flow cannot be followed with an error of {tolerance:g}; raise `tolerance`")


def _step(slope: Slope, y: Tensor, t: Tensor, h: Tensor, rows: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The state after h, the estimate of its error, the slope there."""
    slopes = [k]
    for node, weights in zip(NODES, STAGES, strict=True):
        at = y + h[:, None] * _sum(weights, slopes)
        slopes.append(slope(at, t + node * h, rows))
    return at, h[:, None] * (_sum(STAGES[-1], slopes) - _sum(FOURTH, slopes)), slopes[-1]


def _sum(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    return torch.stack([w * s for w, s in zip(weights, slopes, strict=False) if w]).sum(0)
