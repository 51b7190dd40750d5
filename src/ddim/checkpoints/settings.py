"""The settings people give beside a file: a mapping, or a YAML or JSON file, in the peer's own names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ddim.checkpoints.safe import MAX_JSON


def read_settings(config: Mapping[str, Any] | str | Path | None) -> dict[str, Any]:
    """The settings as a dict.

    Raises:
        OSError, ValueError: no such file, not readable as YAML or JSON, not a mapping.
    """
    if config is None:
        return {}
    if isinstance(config, Mapping):
        return dict(config)
    path = Path(config)
    if path.stat().st_size > MAX_JSON:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, too many for a configuration")
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as YAML or JSON: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold settings, one 'name: value' a line")
    return value


def flat(settings: Mapping[str, Any], sections: tuple[str, ...]) -> dict[str, Any]:
    """The settings with these sections (nested mappings) opened up."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        out |= dict(value) if key in sections and isinstance(value, Mapping) else {key: value}
    return out


def whole(settings: Mapping[str, Any], name: str, default: int, most: int = 1_000_000, *, least: int = 1) -> int:
    """A whole number from `least` to `most`."""
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value!r}")
    return value


def number(settings: Mapping[str, Any], name: str, default: float, *, low: float, high: float = math.inf) -> float:
    """A number above `low`, up to `high`."""
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value <= high:
        upper = f" up to {high:g}" if high < math.inf else ""
        raise ValueError(f"{name} must be a number above {low:g}{upper}, got {value!r}")
    return float(value)


def choice(settings: Mapping[str, Any], name: str, default: str, allowed: tuple[str, ...]) -> str:
    """One of the words allowed."""
    value = settings.get(name, default)
    if value not in allowed:
        raise ValueError(f"{name} = {value!r} is unknown; readable are {', '.join(allowed)}")
    return str(value)


def flag(settings: Mapping[str, Any], name: str, default: bool) -> bool:
    """True or false, also as the words argparse scripts take."""
    value = settings.get(name, default)
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "1", "yes", "false", "0", "no"):
        return str(value).lower() in ("true", "1", "yes")
    raise ValueError(f"{name} must be true or false, got {value!r}")


def agree(settings: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Settings the file itself tells must say the same.

    Raises:
        ValueError: names the setting and both values.
    """
    for name, value in found.items():
        if name in settings and settings[name] is not None and settings[name] != value:
            raise ValueError(f"{where}: {name} = {settings[name]!r} is given, but the weights say {value!r}")
