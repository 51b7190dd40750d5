"""The discrete variance-preserving process: a table of how much of the image is left at t = 0..T.

One float64 table ``alpha_bar[0..T]`` with ``alpha_bar[0] == 1`` (the clean image) is the only thing
this file knows. The DDIM paper (arXiv 2010.02502) writes alpha_t for it; DDPM (arXiv 2006.11239)
writes alpha-bar_t. Everything is computed once in float64, because 1/sqrt(alpha_bar) reaches 2e4.
"""

from __future__ import annotations

import bisect
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddim.process.level import Level
from ddim.refused import Refused

MAX_BETA = 0.999  # Nichol & Dhariwal (arXiv 2102.09672) cap beta here so that alpha_bar_T stays positive


@dataclass(frozen=True, eq=False)
class Schedule:
    """A validated table alpha_bar[0..T], float64, alpha_bar[0] == 1, strictly falling, >= 0.

    Args:
        alpha_bar: T+1 numbers; any float sequence or 1-D tensor, stored as a float64 CPU tensor.

    Raises:
        Refused: fewer than two entries, not starting at 1, not strictly falling, below 0, not finite.
    """

    alpha_bar: Tensor

    def __post_init__(self) -> None:
        table = torch.as_tensor(self.alpha_bar, dtype=torch.float64, device="cpu").detach().clone()
        if table.ndim != 1 or len(table) < 2:
            raise Refused(f"alpha_bar must be one row of at least 2 numbers, got shape {tuple(table.shape)}")
        if not bool(torch.isfinite(table).all()):
            raise Refused("alpha_bar has entries that are not finite")
        if float(table[0]) != 1.0:
            raise Refused(f"alpha_bar[0] must be exactly 1 (the clean image), got {float(table[0])!r}")
        rise = torch.nonzero(table[1:] >= table[:-1])
        if len(rise):
            t = int(rise[0]) + 1
            raise Refused(
                f"alpha_bar must fall strictly, but alpha_bar[{t}] = {float(table[t])!r} "
                f"after alpha_bar[{t - 1}] = {float(table[t - 1])!r}"
            )
        if float(table[-1]) < 0.0:
            raise Refused(f"alpha_bar must not be negative, but alpha_bar[{len(table) - 1}] = {float(table[-1])!r}")
        object.__setattr__(self, "alpha_bar", table)
        object.__setattr__(self, "_levels", [Level(math.sqrt(a), math.sqrt(1.0 - a)) for a in table.tolist()])
        object.__setattr__(self, "_angles", [math.atan2(math.sqrt(1.0 - a), math.sqrt(a)) for a in table.tolist()])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and torch.equal(self.alpha_bar, other.alpha_bar)

    def __hash__(self) -> int:
        return hash((self.T, float(self.alpha_bar[-1])))

    def __repr__(self) -> str:
        return f"Schedule(T={self.T}, alpha_bar_T={float(self.alpha_bar[-1]):.3e})"

    name = "vp-discrete"
    discrete = True
    first = 1

    @property
    def T(self) -> int:
        """Number of diffusion steps; alpha_bar has T+1 entries."""
        return len(self.alpha_bar) - 1

    @property
    def has_zero_terminal_snr(self) -> bool:
        """True when x_T holds no signal at all (alpha_bar[T] == 0)."""
        return float(self.alpha_bar[-1]) == 0.0

    def at(self, t: int) -> Level[float]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t) as Python floats; t in 0..T."""
        if not 0 <= t <= self.T:
            raise Refused(f"t = {t} is outside 0..{self.T}")
        levels: list[Level[float]] = self._levels  # type: ignore[attr-defined]  # set in __post_init__
        return levels[t]

    def at_batch(self, t: Tensor, like: Tensor) -> Level[Tensor]:
        """The same for a batch: t int64 (B,) in 0..T -> two (B, 1, ..) tensors that broadcast over `like` (B, *)."""
        index = t.to("cpu", torch.int64)
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) <= self.T):
            raise Refused(f"t runs from {int(index.min())} to {int(index.max())}, outside 0..{self.T}")
        a = self.alpha_bar[index].view(-1, *([1] * (like.ndim - 1)))
        return Level(a.sqrt().to(like.device, like.dtype), (1.0 - a).sqrt().to(like.device, like.dtype))

    def checked(self, times: Sequence[int]) -> tuple[int, ...]:
        """Whole numbers 0..T (of NumPy or torch too), as Python's.

        Raises:
            Refused: one is no whole number, or outside 0..T.
        """
        try:
            found = tuple(operator.index(t) for t in times)
        except TypeError:
            raise Refused(f"times of a schedule are whole numbers, got {list(times)}") from None
        if found and (min(found) < 0 or max(found) > self.T):
            raise Refused(f"tau runs from {min(found)} to {max(found)}, outside 0..{self.T}")
        return found

    def time_of(self, ratio: float) -> float:
        """The real t at which noise/signal is this ratio: between whole times arctan(noise/signal) goes linearly.

        Raises:
            Refused: a ratio beyond that of T.
        """
        angles: list[float] = self._angles  # type: ignore[attr-defined]  # set in __post_init__
        phi = math.atan(ratio)
        if phi > angles[-1]:
            raise Refused(f"noise/signal = {ratio:.6g} is beyond {math.tan(angles[-1]):.6g}, the most of this schedule")
        k = max(1, bisect.bisect_left(angles, phi))
        return k - (angles[k] - phi) / (angles[k] - angles[k - 1])

    def start(self, t: int) -> float:
        """1: DDPM and DDIM draw x_T from N(0, I), whatever trace of the signal the level at t has."""
        return 1.0

    def identity(self) -> bytes:
        """The bytes of the table."""
        return self.alpha_bar.numpy().tobytes()

    def betas(self) -> Tensor:
        """beta_t = 1 - alpha_bar_t / alpha_bar_{t-1}, t = 1..T, float64 (T,)."""
        return 1.0 - self.alpha_bar[1:] / self.alpha_bar[:-1]

    def zero_terminal_snr(self) -> Schedule:
        """Shift and scale sqrt(alpha_bar_1..T): the last becomes 0, the first stays (arXiv 2305.08891, alg. 1)."""
        root = self.alpha_bar[1:].sqrt()
        if self.T < 2:
            raise Refused(f"rescaling to zero terminal SNR needs T >= 2, got T = {self.T}")
        root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
        return Schedule(torch.cat([torch.ones(1, dtype=torch.float64), root**2]))

    @classmethod
    def from_betas(cls, betas: Sequence[float] | Tensor) -> Schedule:
        """alpha_bar_t = prod_{i<=t} (1 - beta_i), in float64; each beta in (0, 1], 1 only as the last."""
        beta = torch.as_tensor(betas, dtype=torch.float64).flatten()
        bad = torch.nonzero(~((beta > 0) & (beta <= 1)))
        if len(bad):
            raise Refused(f"beta must lie in (0, 1], but beta_{int(bad[0]) + 1} = {float(beta[bad[0]])!r}")
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1.0 - beta, 0)]))

    @classmethod
    def linear(cls, T: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """beta_t evenly spaced from beta_start to beta_end (Ho et al. 2020, section 4)."""
        return cls.from_betas(torch.linspace(beta_start, beta_end, _steps(T), dtype=torch.float64))

    @classmethod
    def scaled_linear(cls, T: int = 1000, *, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
        """sqrt(beta_t) evenly spaced: the latent-diffusion schedule."""
        root = torch.linspace(math.sqrt(beta_start), math.sqrt(beta_end), _steps(T), dtype=torch.float64)
        return cls.from_betas(root**2)

    @classmethod
    def cosine(cls, T: int = 1000, *, offset: float = 0.008) -> Schedule:
        """alpha_bar(u) = cos^2((u + s)/(1 + s) pi/2), beta capped at 0.999 (arXiv 2102.09672, eq. 17)."""
        return cls.from_alpha_bar_function(lambda u: math.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2, T)

    @classmethod
    def sigmoid(cls, T: int = 1000, *, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
        """beta_t = beta_start + (beta_end - beta_start) sigmoid(u), u even in [-6, 6] (GeoDiff; as in diffusers)."""
        u = torch.linspace(-6, 6, _steps(T), dtype=torch.float64)
        return cls.from_betas(torch.sigmoid(u) * (beta_end - beta_start) + beta_start)

    @classmethod
    def from_alpha_bar_function(cls, f: Callable[[float], float], T: int, *, max_beta: float = MAX_BETA) -> Schedule:
        """beta_t = min(1 - f(t/T) / f((t-1)/T), max_beta) for a falling f on [0, 1]."""
        return cls.from_betas([min(1 - f(t / T) / f((t - 1) / T), max_beta) for t in range(1, _steps(T) + 1)])


def _steps(T: int) -> int:
    if T < 1:
        raise Refused(f"a schedule needs T >= 1 steps, got T = {T}")
    return T
