"""How long an average of weights looks back, and any length rebuilt from averages that were kept.

A power-function average at time t weighs the weights of time tau by p(tau) = (g + 1) tau^g / t^(g + 1), 0 <= tau <= t
(EDM2, arXiv 2312.02696, eq. 121). Its length is the standard deviation of p over t: the same share of a
run at every time, where a fixed decay looks back the same number of steps. All in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ddim.refused import Refused

Table = npt.NDArray[np.float64]
LONGEST = 1 / math.sqrt(12)  # g = 0, all times alike


def length_of(gamma: float) -> float:
    """(g + 1)^(1/2) (g + 2)^-1 (g + 3)^(-1/2), the sigma_rel of EDM2 (eq. 123); gamma at least 0."""
    return math.sqrt((gamma + 1) / (gamma + 3)) / (gamma + 2)


def gamma_of(length: float) -> float:
    """The power of that length: the largest root of (g + 2)^2 (g + 3) = (g + 1) / length^2 (EDM2, algorithm 2).

    Raises:
        Refused: a length that is not above 0, or above that of the mean over all times, 0.288.
    """
    if not 0 < length <= LONGEST:
        raise Refused(f"the length of an average is above 0 and at most {LONGEST:.3f}, all steps alike; got {length:g}")
    ratio = length**-2
    roots = np.roots([1.0, 7.0, 16.0 - ratio, 12.0 - ratio])
    return max(0.0, float(roots.real[np.abs(roots.imag) < 1e-6 * np.abs(roots)].max()))


def inner(t: npt.ArrayLike, gamma: npt.ArrayLike, s: npt.ArrayLike, delta: npt.ArrayLike) -> Table:
    """The integral of the product of two averages' weights, of times t, s and powers gamma, delta; they broadcast.

    (g + 1)(d + 1) / (g + d + 1) (t / s)^d / s where t <= s, and with the two exchanged elsewhere (EDM2, eq. 151).
    """
    t, gamma, s, delta = (np.asarray(v, dtype=np.float64) for v in (t, gamma, s, delta))
    late, power = np.maximum(t, s), np.where(t <= s, delta, gamma)
    both: Table = (gamma + 1) * (delta + 1) / (gamma + delta + 1) * (np.minimum(t, s) / late) ** power / late
    return both


def combination(kept: Sequence[tuple[float, float]], t: float, gamma: float) -> tuple[Table, float]:
    """The sum of kept averages nearest to that of time t and power gamma, in the least squares of their weights p.

    EDM2's post-hoc average (section 3.2, algorithm 3), under the condition that the coefficients sum to 1, as those of
    an average do: weights that do not move come out as they are.

    Args:
        kept: (time, power) of each, N of them.

    Returns:
        N coefficients, and the length of what is left over the length of p: 0 for an average that was kept.
    """
    times, powers = np.array(kept, dtype=np.float64).T
    among = inner(times[:, None], powers[:, None], times, powers)
    wanted, own = inner(times, powers, t, gamma), float(inner(t, gamma, t, gamma))
    scale = np.sqrt(np.diag(among))
    # Averages of neighbouring times are nearly alike: of unit length they are solved for with the least loss.
    sides = np.stack([wanted, np.ones_like(times)], 1) / scale[:, None]
    free, ones = (np.linalg.lstsq(among / scale[:, None] / scale, sides, rcond=1e-13)[0] / scale[:, None]).T
    found: Table = free + ones * (1.0 - free.sum()) / ones.sum()
    left = own - 2 * found @ wanted + found @ among @ found
    return found, math.sqrt(max(0.0, float(left)) / own)
