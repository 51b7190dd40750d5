"""Autoguidance: a denoiser guided by a worse version of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ddim.denoise.conditions import NONE, Conditions
from ddim.denoise.protocol import Denoiser, Digest, Wrapper
from ddim.denoise.weights import Interval, acts, refuse_other_process, refuse_weight, weight_at
from ddim.process import Prediction, Time
from ddim.refused import Refused


@dataclass(frozen=True)
class Autoguided(Wrapper):
    """D = D_guide + weight (D_main - D_guide), for x0 and eps alike (Karras et al., arXiv 2406.02507).

    The guide makes the same mistakes, larger: an early checkpoint of the same run, or a smaller network trained alike.
    It is told the same conditions, so no null label is needed. Both answers belong to one x_t, so their mix is a
    consistent pair, whatever either network predicts (eps, x0, v); a variance is the model's own. Two network calls
    where guidance is on, else one.

    Args:
        denoise: the model.
        guide: the worse one, on the same process.
        weight: 1 is the plain model, 0 the guide; above 1 goes on in the direction from the guide to the model.
        interval: (low, high), guide only while low <= t <= high (arXiv 2404.07724); outside, weight 1.

    Raises:
        Refused: a weight that is not finite; an empty interval; a guide of another process, or of another shape.
    """

    guide: Denoiser
    weight: float
    interval: Interval | None = None

    def __post_init__(self) -> None:
        refuse_weight(self.weight, self.interval)
        refuse_other_process(self.process, self.guide.process, "the guide")

    @property
    def invertible(self) -> bool:
        return self.denoise.invertible and self.guide.invertible

    @property
    def one_law(self) -> bool:
        """No, as `Guided`."""
        return False

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        main, weight = self.denoise(x_t, t, conditions), weight_at(self.weight, self.interval, t, x_t)
        if isinstance(weight, float) and weight == 1.0:
            return main
        guide = self.guide(x_t, t, conditions)
        if guide.x0.shape != main.x0.shape:
            shapes = f"{tuple(guide.x0.shape)} where the model answers {tuple(main.x0.shape)}"
            raise Refused(f"the guide answers {shapes}: take one trained on the same images")
        return main._replace(x0=_between(guide.x0, main.x0, weight), eps=_between(guide.eps, main.eps, weight))

    def describe(self) -> dict[str, Any]:
        interval = None if self.interval is None else list(self.interval)
        guide = {**self.guide.describe(), "weight": self.weight, "interval": interval}
        return {**self.denoise.describe(), "guide": guide}

    def rows(self, index: Tensor) -> Autoguided:
        return type(self)(self.denoise.rows(index), self.guide.rows(index), self.weight, self.interval)

    def pinned(self) -> Autoguided:
        return type(self)(self.denoise.pinned(), self.guide.pinned(), self.weight, self.interval)

    def calls_at(self, t: Time | Tensor) -> int:
        own = self.denoise.calls_at(t)
        return own + self.guide.calls_at(t) if acts(self.weight, self.interval, t) else own

    def identify(self, digest: Digest) -> None:
        self.denoise.identify(digest)
        self.guide.identify(digest)


def _between(guide: Tensor, main: Tensor, weight: float | Tensor) -> Tensor:
    """From the model on: a guide that says the same changes no bit, whatever the weight."""
    return main + (weight - 1.0) * (main - guide)
