"""The DDIM family: eta = 0 deterministic, eta = 1 DDPM, any legal sigma."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from ddim.denoise import Denoiser
from ddim.process import Level, Prediction, Time, ddim_step, fixedlarge_step
from ddim.refused import Refused
from ddim.solve.base import Solver, Step


@dataclass(frozen=True)
class DDIM(Solver[None]):
    """The DDIM family (eq. 12 and 16): eta = 0 deterministic, eta = 1 DDPM.

    Args:
        eta: the paper's; any value up to the step's `eta_max`.
        sigma: in place of eta. "hat" is DDPM's "fixedlarge" with the paper's D.3 coefficients, its last
            noise (on the step to 0) masked as every program does; "hat-unmasked" is the formula to the
            letter; a mapping {t: std} gives the std of each step by the time it starts from.

    Raises:
        Refused: eta below 0; eta together with sigma; an unknown name; a step without its std.
    """

    eta: float = 0.0
    sigma: Literal["hat", "hat-unmasked"] | Mapping[Time, float] | None = None
    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if not self.eta >= 0.0:
            raise Refused(f"eta must be at least 0, got {self.eta}")
        if self.sigma is not None and self.eta:
            raise Refused(f"give eta = {self.eta} or sigma = {self.sigma!r}, not both")
        if isinstance(self.sigma, str) and self.sigma not in ("hat", "hat-unmasked"):
            raise Refused(f"sigma is 'hat', 'hat-unmasked' or a mapping from t to std, got {self.sigma!r}")

    @property
    def stochastic(self) -> bool:
        """Whether steps need noise (never the step to the clean image, save with unmasked sigma-hat)."""
        if isinstance(self.sigma, Mapping):
            return any(self.sigma.values())
        return self.sigma is not None or self.eta > 0.0

    def init(self) -> None:
        return None

    def step(self, denoise: Denoiser, x: Tensor, t: Any, s: Any, carry: None, z: Tensor | None) -> Step[None]:
        p = denoise(x, t)
        return Step(self._moved(p, t, denoise.process.at(t), denoise.process.at(s), z), None, p, 1)

    def _moved(self, p: Prediction, t: Any, at_t: Level[float], at_s: Level[float], z: Tensor | None) -> Tensor:
        clean = at_s.noise == 0.0
        if isinstance(self.sigma, str) and (not clean or self.sigma == "hat-unmasked"):
            return fixedlarge_step(p, at_t, at_s, z=z)
        if isinstance(self.sigma, Mapping) and not clean:
            if t not in self.sigma:
                raise Refused(f"sigma has no std for the step from t = {t}; it names {sorted(self.sigma)}")
            return ddim_step(p, at_t, at_s, std=self.sigma[t], z=z)
        return ddim_step(p, at_t, at_s, eta=self.eta, z=z)
