"""The settings people give beside a file: a mapping, or a YAML or JSON file, in the peer's own names."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ddim.refused import Refused
from ddim.stored import content_of, from_yaml, is_number, is_whole

SHOWN = 6  # names in one error line
MAX_SIDE = 65536


def read_settings(config: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """The settings as a dict.

    Raises:
        OSError, Refused: no such file, not readable as YAML or JSON, not a mapping.
    """
    if config is None:
        return {}
    if isinstance(config, Mapping):
        _refuse_placeholders(config)
        return dict(config)
    value = from_yaml(content_of(config), str(config))
    if not isinstance(value, dict):
        raise Refused(f"{config} must hold settings, one 'name: value' a line")
    _refuse_placeholders(value)
    return value


def _refuse_placeholders(settings: Mapping[str, Any]) -> None:
    """Hints say NAME=<side> where nobody but the user knows; copied as it stands it must make nothing."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            _refuse_placeholders(value)
        elif isinstance(value, str) and re.fullmatch(r"<[^<>]*>", value.strip()):
            raise Refused(f"{name}={value} is a placeholder: put what it stands for in its place")


def known_only(given: Iterable[Any], known: Collection[str], where: str, kind: str) -> None:
    """A misspelt setting that is passed over makes wrong images without a word, so every name must be known.

    Raises:
        Refused: names the unknown, each with the known name nearest to it.
    """
    unknown = sorted(str(name) for name in given if name not in known)
    if unknown:
        near = [(name, difflib.get_close_matches(name, known, 1, cutoff=0.0)) for name in unknown[:SHOWN]]
        words = ", ".join(f"{name} (the nearest is {match[0]})" if match else name for name, match in near)
        more = f", and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
        raise Refused(f"{where}: unknown {kind}: {words}{more}")


def section(name: str, value: Any, known: Collection[str], where: str) -> dict[str, Any]:
    """One section of a peer's settings under full names, {"data.image_size": 32}.

    Raises:
        Refused: not a mapping, or a name the peer's section does not have.
    """
    if not isinstance(value, Mapping):
        raise Refused(
            f"{where}: {name} is a section and holds settings (`set` {name}.NAME=VALUE), got {reprlib.repr(value)}"
        )
    full = {f"{name}.{key}": inner for key, inner in value.items()}
    known_only(full, [f"{name}.{key}" for key in known], where, "setting")
    return full


def flat(settings: Mapping[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    """The settings with these sections (nested mappings) opened up."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out |= dict(value) if key in sections and isinstance(value, Mapping) else {key: value}
    return out


def whole(
    settings: Mapping[str, Any], name: str, default: int, most: int = 1_000_000, *, least: int = 1, where: str = ""
) -> int:
    """A whole number from `least` to `most`. Here and below: `where` is the file, for the error."""
    value = settings.get(name, default)
    if not is_whole(value, least, most):
        raise _wrong(where, f"{name} must be a whole number from {least} to {most}", value)
    return int(value)


def size(settings: Mapping[str, Any], name: str, *, where: str = "") -> tuple[int, int] | None:
    """(height, width) from one whole number or two; None where there is none."""
    value = settings.get(name)
    if value is None:
        return None
    sides = tuple(value) if isinstance(value, (list, tuple)) else (value, value)
    if len(sides) != 2 or not all(is_whole(n, 1, MAX_SIDE) for n in sides):
        raise _wrong(where, f"{name} must be a whole number from 1 to {MAX_SIDE}, or two: height, width", value)
    return sides[0], sides[1]


def number(
    settings: Mapping[str, Any], name: str, default: float, *, low: float, high: float = math.inf, where: str = ""
) -> float:
    """A number above `low`, up to `high`."""
    value = settings.get(name, default)
    if not is_number(value) or not low < value <= high:
        upper = f" up to {high:g}" if high < math.inf else ""
        raise _wrong(where, f"{name} must be a number above {low:g}{upper}", value)
    return float(value)


def fraction(settings: Mapping[str, Any], name: str, *, where: str = "") -> float:
    """A number from 0 to 1; 0 where there is none."""
    value = settings.get(name, 0.0)
    if not is_number(value) or not 0.0 <= value <= 1.0:
        raise _wrong(where, f"{name} must be a number from 0 to 1", value)
    return float(value)


def choice(settings: Mapping[str, Any], name: str, default: str, allowed: tuple[str, ...], *, where: str = "") -> str:
    """One of the words allowed."""
    value = settings.get(name, default)
    if value not in allowed:
        raise Refused(f"{_at(where)}{name} = {reprlib.repr(value)} is unknown; readable are {', '.join(allowed)}")
    return str(value)


def flag(settings: Mapping[str, Any], name: str, default: bool, *, where: str = "") -> bool:
    """True or false, also as the words argparse scripts take."""
    value = settings.get(name, default)
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "1", "yes", "false", "0", "no"):
        return str(value).lower() in ("true", "1", "yes")
    raise _wrong(where, f"{name} must be true or false", value)


def agree(settings: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Settings the file itself tells must say the same.

    Raises:
        Refused: names the setting and both values.
    """
    for name, value in found.items():
        if name in settings and settings[name] is not None and settings[name] != value:
            given = reprlib.repr(settings[name])
            raise Refused(f"{where}: {name} = {given} is given, but the weights say {value!r}")


def _at(where: str) -> str:
    return f"{where}: " if where else ""


def _wrong(where: str, rule: str, value: Any) -> Refused:
    return Refused(f"{_at(where)}{rule}, got {reprlib.repr(value)}")
