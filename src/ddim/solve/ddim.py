"""The DDIM family: eta = 0 deterministic, eta = 1 DDPM, any legal sigma."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Level, PerImage, Prediction, Time, ddim_step, fixedlarge_step, learned_step
from ddim.refused import Refused
from ddim.solve.base import Solver, Step


@dataclass(frozen=True)
class DDIM(Solver[None]):
    """The DDIM family (eq. 12 and 16): eta = 0 deterministic, eta = 1 DDPM.

    Args:
        eta: the paper's; any value up to the step's `eta_max`; one for all images, or one an image (a row of numbers).
        sigma: in place of eta. "hat" is DDPM's "fixedlarge" with the paper's D.3 coefficients, its last
            noise (on the step to 0) masked as every program does; "hat-unmasked" is the formula to the
            letter; "learned" is DDPM (eta = 1) with the variance the network says, on the times that are walked
            (arXiv 2102.09672, eq. 15 and section 4); a mapping {t: std} gives the std of each step by the time it
            starts from, one or one an image.

    Raises:
        Refused: eta below 0; eta together with sigma (1 goes with "learned"); an unknown name; a step without its std;
            "learned" with a denoiser that says no variance, or one of single training steps on longer ones.
    """

    eta: PerImage = 0.0
    sigma: Literal["hat", "hat-unmasked", "learned"] | Mapping[Time, PerImage] | None = None
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "eta", _numbers(self.eta))
        if isinstance(self.sigma, Mapping):
            object.__setattr__(self, "sigma", {t: _numbers(std) for t, std in self.sigma.items()})
        if not min(_each(self.eta)) >= 0.0:
            raise Refused(f"eta must be at least 0, got {self.eta}")
        own = {1.0} if self.sigma == "learned" else set()  # its eta, said or not
        if self.sigma is not None and set(_each(self.eta)) - {0.0} - own:
            raise Refused(f"give eta = {self.eta} or sigma = {self.sigma!r}, not both")
        if isinstance(self.sigma, str) and self.sigma not in ("hat", "hat-unmasked", "learned"):
            raise Refused(f"sigma is 'hat', 'hat-unmasked', 'learned' or a mapping from t to std, got {self.sigma!r}")

    @property
    def stochastic(self) -> bool:
        """Whether steps need noise (never the step to the clean image, save with unmasked sigma-hat)."""
        if isinstance(self.sigma, Mapping):
            return any(any(_each(std)) for std in self.sigma.values())
        return self.sigma is not None or any(_each(self.eta))

    @property
    def needs_variance(self) -> bool:
        return self.sigma == "learned"

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: None, z: Tensor | None) -> Step[None]:
        p, at_t, at_s = denoise(x, t), denoise.process.at(t), denoise.process.at(s)
        if self.needs_variance:
            _refuse_skipping(denoise, t, s, at_s)
            return Step(learned_step(p, at_t, at_s, denoise.variance, z=z), None, p, 1)
        return Step(self._moved(p, t, at_t, at_s, z), None, p, 1)

    def _moved(self, p: Prediction, t: Any, at_t: Level[float], at_s: Level[float], z: Tensor | None) -> Tensor:
        clean = at_s.noise == 0.0
        if isinstance(self.sigma, str) and (not clean or self.sigma == "hat-unmasked"):
            return fixedlarge_step(p, at_t, at_s, z=z)
        if isinstance(self.sigma, Mapping) and not clean:
            if t not in self.sigma:
                raise Refused(f"sigma has no std for the step from t = {t}; it names {sorted(self.sigma)}")
            return ddim_step(p, at_t, at_s, std=self.sigma[t], z=z)
        return ddim_step(p, at_t, at_s, eta=self.eta, z=z)

    def check(self, batch: int) -> None:
        held = [self.eta, *(self.sigma.values() if isinstance(self.sigma, Mapping) else ())]
        odd = [len(own) for own in held if isinstance(own, Sequence) and len(own) != batch]
        if odd:
            raise Refused(f"{batch} images need one eta or sigma each, or one for all of them; got {odd[0]}")

    def rows(self, index: slice) -> Self:
        """The same for these images of the batch."""
        sigma = self.sigma
        if isinstance(sigma, Mapping):
            sigma = {t: std[index] if isinstance(std, Sequence) else std for t, std in sigma.items()}
        return replace(self, eta=self.eta[index] if isinstance(self.eta, Sequence) else self.eta, sigma=sigma)


def _refuse_skipping(denoise: Denoiser, t: Any, s: Any, at_s: Level[float]) -> None:
    """A variance itself is that of the steps of training; only a range between two others scales with the step."""
    if denoise.variance == "learned" and at_s.noise > 0.0 and not (denoise.process.discrete and t - s == 1):
        raise Refused(
            f"a variance of type 'learned' is that of a step from t to t - 1, and this one goes from {t} to {s}; "
            f"walk all {denoise.process.T} times, or take eta = 1"
        )


def _numbers(value: Any) -> PerImage:
    """A number, or a row of them (a list, a tensor, an array) as a tuple, so that solvers can be compared."""
    row = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(row, list | tuple):
        if not row or not all(isinstance(v, int | float) for v in row):
            raise Refused(f"eta and sigma are numbers, one for all images or one an image; got {value!r}")
        return tuple(float(v) for v in row)
    number: float = row
    return number


def _each(value: PerImage) -> Sequence[float]:
    return value if isinstance(value, Sequence) else (value,)
