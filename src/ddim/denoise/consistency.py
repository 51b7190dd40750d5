"""A denoiser read as a consistency function: what it says of x_t is where the whole flow from there ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim.denoise.conditions import NONE, Conditions
from ddim.denoise.protocol import Wrapper
from ddim.process import Prediction, Time, level_at, rederive


@dataclass(frozen=True)
class Consistent(Wrapper):
    """f(x_t, t), the end of the flow through x_t at the cleanest time t_min (arXiv 2303.01469, definition 1), as x0.

    f is the one DDIM step (eq. 12, eta = 0) of the network's pair from t to t_min, a_min x0 + b_min eps; so it is x_t
    itself at t_min, bit for bit, on every process and whatever the network returns: of x0 prediction on the EDM process
    c_skip = t_min/t and c_out = 1 - t_min/t. t_min is the process's `first`. eps is re-derived. Nothing can be encoded
    through it: all of x_t's own noise is forgotten in f.
    """

    @property
    def invertible(self) -> bool:
        return False

    @property
    def loses(self) -> str:
        return (
            "is a consistency student: it maps every x_t straight to the image, and knows no way back to one latent; "
            "encode with its teacher, or with a progressive student"
        )

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        p = self.denoise(x_t, t, conditions)
        end = self.process.at(self.process.first)
        f = end.signal * p.x0 + end.noise * p.eps
        if isinstance(t, Tensor):
            clean = (t <= self.process.first).to(x_t.device).view(-1, *([1] * (x_t.ndim - 1)))
            asked = t.clamp(min=self.process.first)
            f = torch.where(clean, x_t, f)
            return rederive(f, x_t, self.process.at_batch(asked, x_t))
        if t <= self.process.first:
            return rederive(x_t, x_t, end)
        return rederive(f, x_t, level_at(self.process, t, x_t))

    def describe(self) -> dict[str, Any]:
        return {**self.denoise.describe(), "consistent": True}
