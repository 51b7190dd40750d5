"""What somebody stored as JSON or YAML, read strictly: no NaN, no text that grows, fields of the type their names say.

Whoever reads a file of ours trusts it later with images or weights, so each field is checked once, here, by a table
name -> (what it must be, in words; how it is read).
"""

from __future__ import annotations

import json
import math
import reprlib
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddim.refused import Refused

MOST_BYTES = 64 * 2**20  # of a configuration
MOST_VALUES = 1_000_000  # that one YAML text may stand for, its aliases written out
DEEPEST = 64  # lists and mappings within one another; Python's own limit would be met later, and elsewhere
Read = Callable[[Any], Any]  # a value as the field, or None where it is no such field
Rule = tuple[str, Read]  # what it must be, in words


def content_of(path: str | Path) -> bytes:
    """The bytes of a configuration.

    Raises:
        Refused: no plain file (a pipe would be waited for), or too large to be a configuration. OSError: none there.
    """
    found = Path(path).stat()
    if not stat.S_ISREG(found.st_mode):
        raise Refused(f"{path} is no file that can be read")
    if found.st_size > MOST_BYTES:
        raise Refused(f"{path} has {found.st_size} bytes, too many for a configuration")
    return Path(path).read_bytes()


def from_json(text: str | bytes, where: str, *, infinite: bool = False) -> Any:
    """The value of a JSON text; its numbers are finite.

    Raises:
        Refused: not JSON; names `where`.
    """
    try:
        words = text.decode() if isinstance(text, bytes) else text
        value = json.loads(words, parse_constant=float if infinite else _no_number, parse_float=_finite)
        return _not_deep(value)
    except (ValueError, RecursionError) as error:  # a ValueError also of bytes that are no text, or of 5000 digits
        raise Refused(f"{where} is not readable as JSON: {' '.join(str(error).split())[:200]}") from None


def object_from_json(text: str | bytes, where: str, *, infinite: bool = False) -> dict[str, Any]:
    """A JSON object.

    infinite: numbers without bounds are let through, as diffusers writes them; whoever reads a number checks it.

    Raises:
        Refused: not JSON, or another kind of value.
    """
    value = from_json(text, where, infinite=infinite)
    if not isinstance(value, dict):
        raise Refused(f"{where} must hold a JSON object")
    return value


def from_yaml(text: str | bytes, where: str) -> Any:
    """The value of a YAML (or JSON) text, in which 1e-4 is a number.

    Raises:
        Refused: not readable, or standing for more than a million values; names `where`.
    """
    import yaml

    try:
        loader = _loader()(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _values(node, {}) > MOST_VALUES:
                raise Refused(f"{where} stands for more than {MOST_VALUES} values by its aliases, which is refused")
            return _not_deep(loader.construct_document(node))
        finally:
            loader.dispose()
    except Refused:
        raise
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:  # ValueError: the 99th of May, bytes
        raise Refused(f"{where} is not readable as YAML or JSON: {' '.join(str(error).split())[:200]}") from None


def checked(fields: Mapping[str, Any], rules: Mapping[str, Rule], where: str) -> dict[str, Any]:
    """The fields, those of known meaning as their rule reads them; null is "not told" for all of them.

    Args:
        where: the file, for error messages.

    Raises:
        Refused: a field that is not what its name says; names file and field.
    """
    out = dict(fields)
    for name, (rule, read) in rules.items():
        if fields.get(name) is None:
            continue
        out[name] = read(fields[name])
        if out[name] is None:
            raise Refused(f"{where}: {name} must be {rule}, got {reprlib.repr(fields[name])}")
    return out


def is_whole(value: Any, least: float, most: float = math.inf) -> bool:
    """Whether it is a whole number of that range; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold, so neither NaN nor infinite, nor an integer of 400 digits."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def only(fits: Callable[[Any], bool]) -> Read:
    """A value as it is, where it fits."""
    return lambda value: value if fits(value) else None


def counted(least: int, most: float = math.inf) -> Rule:
    """The rule of a whole number of that range, which 64 bits hold."""
    upper = f" to {most}" if most < math.inf else ""
    return f"a whole number from {least}{upper}", only(lambda v: is_whole(v, least, min(most, 2**63 - 1)))


def listed(value: Any, fits: Callable[[Any], bool]) -> tuple[Any, ...] | None:
    """A list whose every item fits, as a tuple."""
    return tuple(value) if isinstance(value, (list, tuple)) and all(fits(v) for v in value) else None


FLAG: Rule = ("true or false", only(lambda v: isinstance(v, bool)))
NUMBER: Rule = ("a finite number", only(is_number))
POSITIVE: Rule = ("a number above 0", only(lambda v: is_number(v) and v > 0))
WORD: Rule = ("a word", only(lambda v: isinstance(v, str)))
MAPPING: Rule = ("a mapping", only(lambda v: isinstance(v, Mapping)))


def _not_deep(value: Any) -> Any:
    """The value itself, looked through level by level."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner for v in level if isinstance(v, (dict, list)) for inner in (v.values() if isinstance(v, dict) else v)
        ]
        if not level:
            return value
    raise ValueError(f"more than {DEEPEST} lists or mappings lie within one another")


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word[:20]} is beyond all numbers")
    return value


def _loader() -> Any:
    """Safe YAML in which 1e-4 is a number, as in JSON and YAML 1.2; YAML 1.1 reads it as text unless it is 1.0e-4."""
    import re

    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def _values(node: Any, known: dict[int, float]) -> float:
    """How many values a YAML node stands for: an alias counts as often as it is written, one within itself for ever."""
    if id(node) not in known:
        known[id(node)] = math.inf  # until it is counted: met again inside, it never ends
        inside = node.value if isinstance(node.value, list) else []
        nodes = [n for item in inside for n in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_values(n, known) for n in nodes)
    return known[id(node)]
