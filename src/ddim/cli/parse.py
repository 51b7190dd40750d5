"""From argv (and --config FILE) to a command object, with mistakes as one-line errors."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ddim.cli.typed import SPELLED, flag_of
from ddim.refused import Refused
from ddim.stored import content_of, from_yaml

T = TypeVar("T")
SPELLINGS = {spelled: option for option, spelled in SPELLED.items()}


def command_from(name: str, command: type[T], args: list[str]) -> T:
    """Build `command` from argv; options in the YAML of --config come first, so that argv wins.

    A positional argument of the YAML is left out where argv has no room for it: argv brings its own.

    Raises:
        Refused: anything argv or the YAML has wrong, in one line.
    """
    positional, args = _with_config(command, _filled(command, args))
    if not positional:
        return _built(name, command, args)
    try:
        return _built(name, command, positional + args)
    except Refused:
        with contextlib.suppress(Refused):
            return _built(name, command, args)
        raise


def _filled(command: type[Any], args: list[str]) -> list[str]:
    """The flags that may stand alone (`BARE`), each with the word it means then."""
    bare: dict[str, str] = getattr(command, "BARE", {})
    found: list[str] = []
    for i, word in enumerate(args):
        alone = i + 1 == len(args) or args[i + 1].startswith("--")
        found += [word, bare[word]] if word in bare and alone else [word]
    return found


def _built(name: str, command: type[T], args: list[str]) -> T:
    """The command; one that goes on with what knows its options (`settled`) takes those for what is not given."""
    made: Any = _parsed(name, command, args)
    settled: T = made.settled(lambda own: _parsed(name, command, args, own)) if hasattr(made, "settled") else made
    return settled


def _parsed(name: str, command: type[T], args: list[str], default: T | None = None) -> T:
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            own: dict[str, Any] = {} if default is None else {"default": default}
            made: T = tyro.cli(command, args=args, prog=f"ddim {name}", **own)
            return made
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise Refused(f"{_one_line(errors.getvalue())}; see ddim {name} --help") from None


def _with_config(command: type[Any], args: list[str]) -> tuple[list[str], list[str]]:
    """The YAML's positional arguments, and all the rest."""
    if "config" in {f.name for f in dataclasses.fields(command)}:
        return [], args
    args = [w for a in args for w in (a.split("=", 1) if a.startswith("--config=") else [a])]
    if "--config" not in args:
        return [], args
    at = args.index("--config")
    if at + 1 >= len(args) or not args[at + 1]:
        raise Refused("--config needs a YAML file")
    path, rest = Path(args[at + 1]), args[:at] + args[at + 2 :]
    options = _options(path)
    fields = {f.name: f for f in dataclasses.fields(command)}
    front: list[str] = []
    positional: dict[str, list[str]] = {}
    spelled: dict[str, str] = SPELLINGS | getattr(command, "OLD", {})
    for key, value in options.items():
        field = spelled.get(word := str(key).replace("-", "_"), word)
        if field not in fields:
            raise Refused(f"{path} names {key!r}, which is no option; choose from {', '.join(sorted(fields))}")
        kind, flag = str(fields[field].type), flag_of(field)
        words = [str(v) for v in value] if isinstance(value, list) else [str(value)]
        if kind == "bool" and isinstance(value, bool):  # a flag takes no word: --flip, --no-flip
            front.append(flag if value else f"--no-{flag[2:]}")
        elif "Positional" in kind:
            positional[field] = words
        else:
            front += [flag, *words]
    return [word for field in fields for word in positional.get(field, ())], front + rest


def _options(path: Path) -> dict[Any, Any]:
    options = from_yaml(content_of(path), str(path)) or {}
    if not isinstance(options, dict):
        raise Refused(f"{path} must hold options, one 'name: value' a line")
    return options


TITLES = ("Parsing error", "Required options", "Unrecognized options", "Value error")
POINTERS = ("--help", "For full helptext")  # where its boxes point to: one line points there itself


def _one_line(box: str) -> str:
    """tyro draws its errors as boxes for people at a terminal; the words in them are what matters."""
    words = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"[│╭╰─╮╯╞╡═]+", " ", line).strip() for line in words.splitlines()]
    kept = [line for line in lines if line and line not in TITLES and not any(word in line for word in POINTERS)]
    words = " ".join(" ".join(kept).split()).split(" Argument helptext:")[0]
    return words or "the options could not be read"
