"""What a folder says of its process: scheduler_config.json of any class, and ddim.json where it knows better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddim.checkpoints.facts import OURS, SAMPLING, process_in, refuse_gaps, schedule_in
from ddim.checkpoints.families.diffusers import others, scheduler
from ddim.checkpoints.families.diffusers.betas import like
from ddim.checkpoints.families.diffusers.sampling import Sampling
from ddim.process import Schedule
from ddim.refused import Refused
from ddim.stored import content_of, object_from_json

ASSUMED = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "num_train_timesteps": 1000}


def sampling_of(folder: Path, given: dict[str, Any], facts: Mapping[str, Any], notes: list[str]) -> Sampling:
    """The scheduler_config.json of a folder with `given` over it; what ddim.json says goes before it.

    Raises:
        Refused: not readable, or of another process than ddim.json's.
    """
    found = [p for p in (folder / "scheduler/scheduler_config.json", folder / "scheduler_config.json") if p.is_file()]
    if facts.get("process") is not None:
        return _told(folder, _written(found[0]) if found else {}, given, facts)
    config = (_written(found[0]) if found else ASSUMED) | given
    said = others.read(config) if others.is_other(config) else scheduler.read(config)
    if not found and not given:
        notes.append("no scheduler_config.json: assumed T = 1000, linear betas 1e-4 to 0.02, epsilon prediction")
    if facts.get("alpha_bar") is None or any(k.startswith(("beta_", "trained", "rescale", "num_train")) for k in given):
        return said
    schedule = schedule_in(facts, str(folder / OURS))
    if not isinstance(said.process, Schedule) or not like(schedule, said.process):
        raise Refused(
            f"{folder}: ddim.json's alpha_bar is another schedule than scheduler_config.json's; remove the wrong one"
        )
    return replace(said, process=schedule)


def _written(path: Path) -> dict[str, Any]:
    """A scheduler_config.json, in which diffusers writes -Infinity for a bound that is none."""
    return object_from_json(content_of(path), str(path), infinite=True)


def _told(folder: Path, config: Mapping[str, Any], given: Mapping[str, Any], facts: Mapping[str, Any]) -> Sampling:
    """What ddim.json says of a continuous process; a scheduler_config.json beside it must be of the same one."""
    if given:
        raise Refused(f"{folder} says everything of its process itself: leave {', '.join(given)} out")
    where = str(folder / OURS)
    refuse_gaps(facts, ("prediction",), where, "save the model again")
    sampling = {name: facts[name] for name in SAMPLING if facts.get(name) is not None}
    said = Sampling(prediction=facts["prediction"], **process_in(facts, where), **sampling)
    if config and others.is_other(config) and others.read(config).process != said.process:
        raise Refused(f"{folder}: ddim.json's process is another than scheduler_config.json's; remove the wrong one")
    return said


def range_of(facts: Mapping[str, Any], said: Sampling, notes: list[str]) -> tuple[float, float]:
    """What means black and white to the network: as ddim.json says, or the scheduler's own pipeline has it."""
    if facts.get("data_range") is None:
        if said.data_range is not None:
            return said.data_range
        notes.append("data range assumed -1 to 1, as diffusers trains")
        return (-1.0, 1.0)
    low, high = facts["data_range"]
    return low, high
