"""What a file of latents holds, read strictly: its recipe and its columns, each of the type its name says."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ddim.refused import Refused
from ddim.solve import GROWTH
from ddim.stored import (
    MAPPING,
    NUMBER,
    POSITIVE,
    WORD,
    Rule,
    checked,
    is_number,
    is_whole,
    listed,
    object_from_json,
    only,
)
from ddim.uses.certificate import Certificate, LatentRecipe, Reproduction, Road
from ddim.uses.roads import METHODS

FIDELITY = ("fidelity_psnr", "fidelity_max_error")
CERTIFICATE = ("residual", "psnr", "max_error", "nfe", "road")
WHOLE = {"nfe": torch.int64, "road": torch.int64, "coupled": torch.bool}
LISTS = ("unsolved", "names", "seeds")


def read_recipe(text: str, where: str) -> tuple[LatentRecipe, dict[str, Any]]:
    """The recipe, and by name the images that were not solved, the images' names and seeds.

    Raises:
        Refused: a field missing or of another type; names it.
    """
    told = object_from_json(text, f"the recipe in {where}")
    told = {"roads": [{"tau": told.get("tau")}], "seeds": [], **told}  # of files before there were several roads
    missing = [name for name in FIELDS if told.get(name) is None]
    if missing:
        raise Refused(f"{where}: its recipe lacks {', '.join(missing)}; encode again")
    fields = checked({name: told[name] for name in FIELDS}, FIELDS, where)
    checked(fields["conditions"], CONDITIONS, where)
    lists = {name: fields.pop(name) for name in LISTS}
    return LatentRecipe(**fields), lists


def read_columns(tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """x_T, the certificate, `coupled` and `states`, each of its type.

    Raises:
        Refused: one missing, of another type, or latents that are not finite.
    """
    rows = dict.fromkeys(CERTIFICATE, torch.float64) | WHOLE
    if "road" not in tensors and "coupled" in tensors:
        tensors = {**tensors, "road": -tensors["coupled"].long()}
    if any(name in tensors for name in FIDELITY):
        rows |= dict.fromkeys(FIDELITY, torch.float64)
    for name in ("x_T", *rows):
        if name not in tensors:
            raise Refused(f"{where} lacks {name}; encode again")
    for name, kind in rows.items():
        if tensors[name].dtype != kind or tensors[name].ndim != 1:
            raise Refused(f"{where}: {name} must be one {_kind(kind)} an image, got {_looks(tensors[name])}")
    for name in ("x_T", "states"):
        held = tensors.get(name)
        if held is None:
            continue
        if not held.is_floating_point() or held.ndim < 2 or not held.numel():
            raise Refused(f"{where}: {name} must be floating-point latents, one row an image, got {_looks(held)}")
        if not bool(torch.isfinite(held).all()):
            raise Refused(f"{where}: {name} is not finite (NaN or infinity), so no image can be made of it")
    measured = Certificate(**{name: tensors[name] for name in CERTIFICATE})
    fidelity = Reproduction(*(tensors[name] for name in FIDELITY)) if FIDELITY[0] in rows else None
    return {"x_T": tensors["x_T"], "fidelity": fidelity, "coupled": tensors["coupled"], "states": tensors.get("states"),
            "certificate": measured}  # fmt: skip


def _looks(value: Tensor) -> str:
    return f"{_kind(value.dtype)} {tuple(value.shape)}"


def _kind(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _times(value: Any) -> tuple[Any, ...] | None:
    times = listed(value, lambda t: is_number(t) and t >= 0)
    falls = times is not None and len(times) > 1 and all(t > s for t, s in pairwise(times))
    return times if falls else None


def _roads(value: Any) -> tuple[Road, ...] | None:
    def fits(road: Any) -> bool:
        known = isinstance(road, Mapping) and {"tau"} <= set(road) <= {"tau", "start"}
        times = _times(road["tau"]) if known else None
        return times is not None and road.get("start") in (None, times[-1])

    roads = listed(value, fits)
    return tuple(Road(tuple(r["tau"]), r.get("start")) for r in roads) if roads else None


def _file_names(value: Any) -> tuple[str, ...] | None:
    """Files are written under these."""

    def fits(name: Any) -> bool:
        return isinstance(name, str) and name not in ("", ".", "..") and not any(c in name for c in "/\\\0")

    return listed(value, fits)


def _classes(value: Any) -> bool:
    return is_whole(value, 0) or listed(value, lambda k: isinstance(k, (int, list))) is not None


FIELDS: dict[str, Rule] = {
    "tau": ("falling times, at least two", _times),
    "method": (f"one of {', '.join(METHODS)}", only(lambda v: v in METHODS)),
    "model": WORD,
    "conditions": MAPPING,
    "gamma": (f"a number from 1 to {GROWTH:g}", only(lambda v: is_number(v) and 1 <= v <= GROWTH)),
    "tolerance": POSITIVE,
    "unsolved": ("a list of whole numbers from 0", lambda v: listed(v, lambda i: is_whole(i, 0))),
    "names": ("a list of file names", _file_names),
    "roads": ("a list of falling times, each with its start", _roads),
    "seeds": ("a list of whole numbers from 0", lambda v: listed(v, lambda i: is_whole(i, 0))),
}
CONDITIONS: dict[str, Rule] = {
    "guidance": NUMBER,
    "rescale": NUMBER,
    "interval": ("two numbers", only(lambda v: len(listed(v, is_number) or ()) == 2)),
    "label": ("classes", only(_classes)),
}
