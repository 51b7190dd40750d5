"""How fast a run learns: what the loop has to know of any recipe, and what every recipe checks of it."""

from __future__ import annotations

import math
from typing import Protocol

from ddim.refused import Refused
from ddim.stored import FLAG, NUMBER, POSITIVE, WORD, Rule, counted

PACE: dict[str, Rule] = {
    **dict.fromkeys(("batch_size", "accumulation"), counted(1)),
    **dict.fromkeys(("optimizer", "precision"), WORD),
    **dict.fromkeys(("warmup", "lr_decay_steps", "seed"), counted(0)),
    **dict.fromkeys(("lr", "clip"), POSITIVE),
    **dict.fromkeys(("weight_decay", "ema"), NUMBER),
    "flip": FLAG,
}
"""Fields of every recipe, each with its type."""


class Pace(Protocol):
    """What the loop and its state have to know of any recipe; each is as `Recipe` says."""

    @property
    def seed(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def accumulation(self) -> int: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def ema(self) -> float: ...
    @property
    def precision(self) -> str: ...
    def lr_at(self, step: int) -> float: ...


class Paced(Pace, Protocol):
    """A pace that warms up, and may fall as a cosine."""

    @property
    def warmup(self) -> int: ...
    @property
    def lr_decay_steps(self) -> int | None: ...


def refuse_pace(recipe: Paced) -> None:
    """Every number lies in its range.

    Raises:
        Refused: one does not.
    """
    if recipe.weight_decay < 0:
        raise Refused(f"weight_decay must be at least 0, got {recipe.weight_decay}")
    if not 0 <= recipe.ema < 1:
        raise Refused(f"ema must be at least 0 and below 1, got {recipe.ema}")
    if recipe.batch_size % recipe.accumulation:
        raise Refused(f"batch_size = {recipe.batch_size} is no multiple of accumulation = {recipe.accumulation}")
    if recipe.optimizer not in ("adam", "adamw"):
        raise Refused(f"optimizer must be adam or adamw, got {recipe.optimizer!r}")
    if recipe.lr_decay_steps is not None and recipe.lr_decay_steps <= recipe.warmup:
        raise Refused(f"lr_decay_steps = {recipe.lr_decay_steps} must lie beyond warmup = {recipe.warmup}")


def rate_at(recipe: Paced, step: int) -> float:
    """The learning rate of step 0, 1, ...: warm-up, then flat or a cosine down to lr/100."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    if recipe.lr_decay_steps is None:
        return recipe.lr
    u = min(1.0, (step - recipe.warmup) / (recipe.lr_decay_steps - recipe.warmup))
    return recipe.lr * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * u)))
