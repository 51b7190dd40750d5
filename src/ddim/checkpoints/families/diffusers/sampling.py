"""`Sampling`: what a scheduler_config.json says, whichever scheduler class it is of."""

from __future__ import annotations

from dataclasses import dataclass

from ddim.process import Process, TimeLabel


@dataclass(frozen=True)
class Sampling:
    """What a scheduler_config.json says; the names are those of `Checkpoint`. data_range: None where it is silent."""

    process: Process
    prediction: str
    clips: bool = False
    clip_range: float = 1.0
    thresholding: bool = False
    threshold_quantile: float = 0.995
    threshold_maximum: float = 1.0
    spacing: str = "uniform"
    steps_offset: int = 0
    ends_at: int = 0
    variance_type: str | None = None
    notes: tuple[str, ...] = ()
    data_std: float = 0.5
    unit_input: bool = False
    time_label: TimeLabel | None = None
    data_range: tuple[float, float] | None = None
