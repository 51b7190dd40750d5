"""The facts of ddim.json, checked once: whoever reads them later trusts them with every image."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from ddim.checkpoints.settings import MAX_SIDE
from ddim.checkpoints.student import Student
from ddim.process import (
    PARAMETERISATIONS,
    REAL_SPACINGS,
    SPACINGS,
    Continuous,
    Process,
    Schedule,
    TimeLabel,
    process_of,
)
from ddim.refused import Refused
from ddim.stored import FLAG, POSITIVE, WORD, Rule, counted, is_number, is_whole, listed, only
from ddim.stored import checked as checked_fields

OURS = "ddim.json"
FACTS = ("shape", "data_range", "num_classes", "null_label", "labels")
SAMPLING = ("clips", "clip_range", "thresholding", "threshold_quantile", "threshold_maximum", "spacing",
            "steps_offset", "ends_at")  # fmt: skip
WHOLE = (*FACTS, *SAMPLING, "prediction", "learned_variance", "time_scale", "variance_type", "notes")
"""What a file says that stands alone, with no scheduler_config.json beside it; names as in `Checkpoint`."""
NULLABLE = ("num_classes", "null_label", "labels", "variance_type")  # null is an answer; elsewhere it is none
ON_REAL_TIMES = ("data_std", "unit_input", "time_label")  # told where the process is a continuous one


def checked(facts: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The facts, those of known meaning in their own types (lists as tuples); null is "not told" for all of them.

    Args:
        facts: what ddim.json holds, or the same names given by hand.
        where: the file, for error messages.

    Raises:
        Refused: a fact that is not what its name says; names file and fact.
    """
    return checked_fields(facts, RULES, where)


def refuse_gaps(facts: Mapping[str, Any], needed: Collection[str], where: str, remedy: str) -> None:
    """Every fact needed is told.

    Raises:
        Refused: some are not; names them.
    """
    missing = [name for name in needed if name not in facts or (facts[name] is None and name not in NULLABLE)]
    if missing:
        raise Refused(f"{where} lacks {', '.join(missing)}; {remedy}")


def schedule_in(facts: Mapping[str, Any], where: str) -> Schedule:
    """The float64 table under alpha_bar, bit for bit.

    Raises:
        Refused: it is no schedule.
    """
    try:
        return Schedule(torch.tensor(facts["alpha_bar"], dtype=torch.float64))
    except Refused as error:
        raise Refused(f"{where}: {error}") from None


def process_facts(process: Process, told: Mapping[str, Any]) -> dict[str, Any]:
    """What ddim.json says of the process: the table of a schedule, or kind, numbers and label of a continuous one.

    Args:
        told: what is known under the names of `ON_REAL_TIMES`, beside other things.

    Raises:
        Refused: a continuous process of functions of one's own, which no file can hold.
    """
    if isinstance(process, Schedule):
        return {"alpha_bar": process.alpha_bar.tolist()}
    if not isinstance(process, Continuous) or process.numbers is None:
        raise Refused(f"the process {process.name} is of functions of your own, which no file can hold")
    rest = {name: told[name] for name in ON_REAL_TIMES if told.get(name) is not None}
    if isinstance(rest.get("time_label"), TimeLabel):
        rest["time_label"] = rest["time_label"].as_json()
    return {"process": {"kind": process.kind, **process.numbers}, **rest}


def process_in(facts: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What `process_facts` told (checked): `process`, and the rest under the names of `Checkpoint`.

    Raises:
        Refused: neither a table nor a process; numbers that make none.
    """
    if facts.get("process") is None:
        refuse_gaps(facts, ("alpha_bar",), where, "save the model again")
        return {"process": schedule_in(facts, where)}
    try:
        told = dict(facts["process"])
        rest = {name: facts[name] for name in ON_REAL_TIMES if facts.get(name) is not None}
        return {"process": process_of(told.pop("kind"), told), **rest}
    except Refused as error:
        raise Refused(f"{where}: {error}") from None


def classes(
    facts: Mapping[str, Any], embeddings: int | None, where: str, notes: list[str]
) -> tuple[int | None, int | None]:
    """(real classes, null label), both of them embeddings the network has.

    Raises:
        Refused: a class the network has no embedding for; shows both numbers.
    """
    count, null_label = facts.get("num_classes"), facts.get("null_label")
    if embeddings is None:
        for name in ("num_classes", "null_label"):
            if facts.get(name) is not None:
                raise Refused(f"{where}: {name} = {facts[name]}, but the network has no class embeddings")
        return None, None
    if count is not None and count > embeddings:
        raise Refused(f"{where}: num_classes = {count}, but the network has {embeddings} class embeddings")
    if null_label is not None and null_label >= embeddings:
        raise Refused(
            f"{where}: null_label = {null_label}, but the network's class embeddings are 0 to {embeddings - 1}"
        )
    if count is None:
        count = embeddings - (null_label is not None)
        told = " and no null label (the setting null_label=K tells one)" if null_label is None else ""
        told = told or f" and null label {null_label}"
        notes.append(f"{embeddings} class embeddings: assumed {count} real classes{told}")
    return count, null_label


def labels(facts: Mapping[str, Any], num_classes: int | None, where: str) -> tuple[str, ...] | None:
    """The classes' names, if there are any.

    Raises:
        Refused: more or fewer names than classes.
    """
    names: tuple[str, ...] | None = facts.get("labels") or None
    if names is not None and num_classes is not None and len(names) != num_classes:
        raise Refused(f"{where}: {len(names)} label names for {num_classes} classes")
    return names


def _shape(value: Any) -> tuple[int, ...] | None:
    sides = listed(value, lambda n: is_whole(n, 1, MAX_SIDE))
    return sides if sides is not None and len(sides) == 3 else None


def _range(value: Any) -> tuple[float, float] | None:
    ends = listed(value, is_number)
    return (float(ends[0]), float(ends[1])) if ends is not None and len(ends) == 2 and ends[0] < ends[1] else None


def _names(value: Any) -> tuple[str, ...] | None:
    names = listed(value, lambda n: isinstance(n, str) or is_whole(n, 0))  # digits are named 0 to 9
    return None if names is None else tuple(str(n) for n in names)


def _process(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
        return None
    numbers = {k: v for k, v in value.items() if k != "kind"}
    return dict(value) if all(is_number(v) for v in numbers.values()) else None


def _label(value: Any) -> TimeLabel | None:
    if isinstance(value, TimeLabel):
        return value
    if not isinstance(value, Mapping) or not set(value) <= {"clock", "scale", "shift", "of"}:
        return None
    if not all(is_number(value.get(name, 0.0)) for name in ("scale", "shift")):
        return None
    if value.get("of") is not None and _process(value["of"]) is None:
        return None
    return TimeLabel.from_json({"clock": "", **value})


RULES: dict[str, Rule] = {
    "shape": (f"three whole numbers from 1 to {MAX_SIDE} (channels, height, width)", _shape),
    "data_range": ("two finite numbers, the lower first", _range),
    "autoencoder": WORD,
    "num_classes": counted(1),
    "null_label": counted(0),
    "labels": ("a list of names", _names),
    "notes": ("a list of sentences", lambda v: listed(v, lambda n: isinstance(n, str))),
    "alpha_bar": ("a list of finite numbers", lambda v: listed(v, is_number)),
    "prediction": (f"one of {', '.join(PARAMETERISATIONS)}", only(lambda v: v in tuple(PARAMETERISATIONS))),
    "process": ("a kind and its numbers", _process),
    "time_label": ("a clock, a scale and a shift", _label),
    "data_std": POSITIVE,
    "unit_input": FLAG,
    "spacing": (f"one of {', '.join((*SPACINGS, 'edm'))}", only(lambda v: v in (*SPACINGS, *REAL_SPACINGS))),
    "variance_type": WORD,
    "student": ("kind, tau, teacher and guidance, as `ddim distil` writes them", Student.of),
    "learned_variance": FLAG,
    "clips": FLAG,
    "thresholding": FLAG,
    "time_scale": POSITIVE,
    "clip_range": POSITIVE,
    "threshold_maximum": POSITIVE,
    "threshold_quantile": ("a number above 0, up to 1", only(lambda v: is_number(v) and 0 < v <= 1)),
    "steps_offset": counted(0),
    "ends_at": ("0 or 1", only(lambda v: is_whole(v, 0, 1))),
}
