"""Noise schedules as diffusers names them: beta_schedule, beta_start, .. to a `Schedule`, and back."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ddim.checkpoints.settings import number, whole
from ddim.process import Schedule
from ddim.refused import Refused
from ddim.stored import is_number

MAX_T = 1_000_000
DEFAULT_BETAS = ((1e-4, 0.02), (0.00085, 0.012))


def schedule_of(fields: Mapping[str, Any]) -> Schedule:
    """The noise schedule of num_train_timesteps, beta_*, trained_betas and rescale_betas_zero_snr, in float64."""
    T = whole(fields, "num_train_timesteps", 1000, most=MAX_T)
    betas = fields.get("trained_betas")
    if betas is not None:
        if not isinstance(betas, (list, tuple)) or not all(is_number(b) for b in betas):
            raise Refused("trained_betas must be a list of numbers")
        if "num_train_timesteps" in fields and len(betas) != T:
            raise Refused(f"trained_betas holds {len(betas)} numbers, but num_train_timesteps = {T}")
        schedule = Schedule.from_betas(betas)
    else:
        start, end = number(fields, "beta_start", 1e-4, low=0.0), number(fields, "beta_end", 0.02, low=0.0)
        name = fields.get("beta_schedule", "linear")
        schedule = _named(name, T, start, end)
    return schedule.zero_terminal_snr() if flag_of(fields, "rescale_betas_zero_snr", False) else schedule


def _named(name: Any, T: int, start: float, end: float) -> Schedule:
    if name == "linear":
        return Schedule.linear(T, beta_start=start, beta_end=end)
    if name == "scaled_linear":
        return Schedule.scaled_linear(T, beta_start=start, beta_end=end)
    if name == "squaredcos_cap_v2":
        return Schedule.cosine(T)
    if name == "sigmoid":
        return Schedule.sigmoid(T, beta_start=start, beta_end=end)
    if name == "laplace":
        return Schedule.from_alpha_bar_function(_laplace, T)
    names = "linear, scaled_linear, squaredcos_cap_v2, sigmoid, laplace"
    raise Refused(f"beta_schedule {name!r} is unknown; readable are {names} (or trained_betas)")


def _laplace(u: float) -> float:
    """diffusers' "laplace": log SNR = -1/2 sign(1/2 - u) log(1 - 2|1/2 - u| + 1e-6), f = sqrt(SNR/(1 + SNR))."""
    log_snr = -0.5 * math.copysign(1.0, 0.5 - u) * math.log(1.0 - 2.0 * abs(0.5 - u) + 1e-6)
    snr = math.exp(log_snr)
    return math.sqrt(snr / (1.0 + snr))


def named_betas(schedule: Schedule) -> dict[str, Any]:
    """beta_schedule, beta_start, beta_end, trained_betas and rescale_betas_zero_snr that give this table."""
    for name, start, end, rescaled in _candidates(schedule):
        try:
            table = _named(name, schedule.T, start, end)
            table = table.zero_terminal_snr() if rescaled else table
        except Refused:
            continue  # rounded betas that make no schedule name none
        if table == schedule:
            return _betas(name, start, end, None, rescaled)
    return _betas("linear", 1e-4, 0.02, schedule.betas().tolist(), False)


def _betas(name: str, start: float, end: float, betas: list[float] | None, rescaled: bool) -> dict[str, Any]:
    return {
        "beta_schedule": name,
        "beta_start": start,
        "beta_end": end,
        "trained_betas": betas,
        "rescale_betas_zero_snr": rescaled,
    }


def _candidates(schedule: Schedule) -> Iterator[tuple[str, float, float, bool]]:
    """Names worth trying. DDIMScheduler does not read sigmoid and laplace: their tables are written out."""
    rescaled = schedule.has_zero_terminal_snr
    yield "squaredcos_cap_v2", *DEFAULT_BETAS[0], rescaled
    for (start, end), name in itertools.product(DEFAULT_BETAS, ("linear", "scaled_linear")):
        yield name, start, end, rescaled
    if rescaled:
        return
    first, last = float(schedule.betas()[0]), float(schedule.betas()[-1])
    for digits in (3, 6, 9, 12):  # betas read back from alpha_bar carry its rounding
        start, end = float(f"{first:.{digits}g}"), float(f"{last:.{digits}g}")
        yield "linear", start, end, False
        yield "scaled_linear", start, end, False


def like(schedule: Schedule, other: Schedule) -> bool:
    """Whether two tables are the same but for float32 rounding of the betas behind them."""
    if schedule.T != other.T:
        return False
    a, b = schedule.alpha_bar, other.alpha_bar
    return bool(torch.allclose(a, b, rtol=1e-3, atol=1e-7))


def flag_of(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or false as JSON has them: other words are no scheduler's."""
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise Refused(f"{name} must be true or false, got {value!r}")
    return value
