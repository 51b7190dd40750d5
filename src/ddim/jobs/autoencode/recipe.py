"""What decides an autoencoder: every number that changes its weights, and nothing else."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from ddim.jobs.train import PACE, rate_at, refuse_pace
from ddim.nets import AUTOENCODERS
from ddim.refused import Refused
from ddim.stored import NUMBER, POSITIVE, WORD, Rule, checked, counted

FIELDS: dict[str, Rule] = {
    **PACE,
    "kind": WORD,
    **dict.fromkeys(("factor", "latent_channels", "width", "blocks", "held_out"), counted(1)),
    "critic_from": counted(0),
    "critic_weight": POSITIVE,
    "kl_weight": NUMBER,
}


@dataclass(frozen=True)
class AutoencoderRecipe:
    """One autoencoder.

    Args:
        kind, factor, latent_channels, width, blocks: see `new_autoencoder`.
        kl_weight: of the KL divergence from a standard normal, see `Trainee`; "kl" alone has one.
        critic_from: the step from which a `PatchCritic` learns and is listened to; None for never. critic_weight: how
            much of the gradient at the last layer is its.
        held_out: images that are measured on and never learnt from.
        batch_size to seed: as of `Recipe`.

    Raises:
        Refused: a number outside its range.
    """

    kind: str = "kl"
    factor: int = 4
    latent_channels: int = 4
    width: int = 32
    blocks: int = 1
    kl_weight: float = 1e-6
    critic_from: int | None = None
    critic_weight: float = 0.5
    held_out: int = 1000
    batch_size: int = 16
    accumulation: int = 1
    optimizer: str = "adam"
    lr: float = 1e-3
    warmup: int = 200
    lr_decay_steps: int | None = None
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    flip: bool = False
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        checked(vars(self), FIELDS, "an autoencoder's training")
        if self.kind not in AUTOENCODERS:
            raise Refused(f"unknown `kind` {self.kind!r}; choose one of {', '.join(AUTOENCODERS)}")
        if self.kl_weight < 0:
            raise Refused(f"kl_weight must be at least 0, got {self.kl_weight}")
        if self.factor < 2 or self.factor & (self.factor - 1):
            raise Refused(f"`factor` must be a power of two from 2, got {self.factor}")
        refuse_pace(self)

    def lr_at(self, step: int) -> float:
        """The learning rate of step 0, 1, ..."""
        return rate_at(self, step)

    def as_dict(self) -> dict[str, Any]:
        """Its fields, for JSON."""
        return dataclasses.asdict(self)
