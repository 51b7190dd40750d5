"""The options that `ddim train`, `train-autoencoder` and `distil` share: how a network learns, what is written when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from ddim.cli import options


@dataclass(frozen=True, kw_only=True)
class Learning(options.OnDevice):
    """A run that changes weights."""

    accumulation: int = 1
    """Split each batch into this many parts, to save memory."""
    warmup: int = 500
    """Steps over which the learning rate rises from 0."""
    grad_clip: Annotated[float, tyro.conf.arg(aliases=("--clip",))] = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    """Decay of the averaged weights, warmed up as (1 + n)/(10 + n)."""
    flip: bool = False
    """Mirror images left to right at random."""
    seed: int = 0
    """Decides the initial weights, the order of the data and all noise."""
    precision: options.Fast = "auto"
    """auto, fp32, bf16 or fp16; auto is bf16 where the GPU or the CPU computes in it, else fp32. Weights stay fp32."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last two are kept."""
    preview_every: int = 1000
    """Steps between preview pictures; 0 for none."""
    log_every: int = 50
    """Steps between lines of log.jsonl."""
    resume: bool = False
    """Go on with the run in --out (or, without DATA, in the folder named): what is not given is as the run has it. What
    decides the weights must be as it was; accumulation, device, processes, max-steps and how often what is written may
    change."""


@dataclass(frozen=True, kw_only=True)
class OfClasses(Learning):
    """A run that may learn classes."""

    label_dropout: float = 0.1
    """How often a class is hidden, so that guidance can be used later."""


@dataclass(frozen=True, kw_only=True)
class OfSteps:
    """A run of so many optimizer steps."""

    max_steps: int = 10000
    """Optimizer steps, counted from the beginning of the run."""
    lr_decay_steps: int | None = None
    """Let the learning rate fall as a cosine to lr/100 at this step. Default: constant."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    """Adam, or Adam with decoupled weight decay."""
    weight_decay: float = 0.0
    """Weight decay."""


@dataclass(frozen=True, kw_only=True)
class OfBatches:
    """A run whose batches are as large whatever its network."""

    batch_size: int = 64
    """Images of one optimizer step, over all processes."""


@dataclass(frozen=True, kw_only=True)
class OfImages:
    """How the images of a run are read."""

    size: str | None = None
    """H or HxW. Default: the size of the images."""
    fit: Literal["crop", "pad", "resize"] = "crop"
    """How images of other proportions are brought to --size."""
    channels: Literal[1, 3] | None = None
    """1 grey, 3 RGB. Default: 1 if every image is grey."""
    skip_unreadable: bool = False
    """Leave out files that cannot be read, instead of refusing."""
