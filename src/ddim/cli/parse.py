"""From argv (and --config FILE) to a command object, with mistakes as one-line errors."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

T = TypeVar("T")


def parse(name: str, command: type[T], args: list[str]) -> T:
    """Build `command` from argv; options in the YAML of --config come first, so that argv wins.

    Raises:
        ValueError: anything argv or the YAML has wrong, in one line.
    """
    args = _with_config(command, args)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(command, args=args, prog=f"ddim {name}")
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise ValueError(f"{_one_line(errors.getvalue())}; see ddim {name} --help") from None


def _with_config(command: type[Any], args: list[str]) -> list[str]:
    if "--config" not in args or "config" in {f.name for f in dataclasses.fields(command)}:
        return args
    at = args.index("--config")
    if at + 1 >= len(args):
        raise ValueError("--config needs a YAML file")
    path, rest = Path(args[at + 1]), args[:at] + args[at + 2 :]
    try:
        options = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable as YAML: {error}") from None
    if not isinstance(options, dict):
        raise ValueError(f"{path} must hold options, one 'name: value' a line")
    fields = {f.name: f for f in dataclasses.fields(command)}
    front: list[str] = []
    for key, value in options.items():
        field = str(key).replace("-", "_")
        if field not in fields:
            raise ValueError(f"{path} names {key!r}, which is no option; choose from {', '.join(sorted(fields))}")
        kind, flag = str(fields[field].type), field.replace("_", "-")
        if kind == "bool" and isinstance(value, bool):  # a flag takes no word: --flip, --no-flip
            front.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        words = [str(v) for v in value] if isinstance(value, list) else [str(value)]
        front += words if "Positional" in kind else [f"--{flag}", *words]
    return front + rest


def _one_line(box: str) -> str:
    """tyro draws its errors as boxes for people at a terminal; the words in them are what matters."""
    words = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [re.sub(r"[│╭╰─╮╯╞╡═]+", " ", line).strip() for line in words.splitlines()]
    kept = [
        line for line in lines if line and "--help" not in line and line not in ("Parsing error", "Required options")
    ]
    words = " ".join(" ".join(kept).split()).split(" Argument helptext:")[0]
    return words or "the options could not be read"
