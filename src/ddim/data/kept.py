"""What lies in the cache, as it was written or not at all: a table of numbers, words sealed by their own hash."""

from __future__ import annotations

import json
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from ddim.files import digest, read_json, sha256, whole_file, write_text

# Of NumPy, at a header that is damaged: it is read as Python's own text.
NO_HEADER = (SyntaxError, TokenError, TypeError, LookupError, OverflowError, MemoryError, RecursionError)


def kept_array(path: Path) -> npt.NDArray[Any]:
    """The array of a .npy file, memory-mapped.

    Raises:
        ValueError, OSError: it is missing or damaged.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except NO_HEADER as error:
        raise ValueError(f"{path} holds no array: {error}") from None


def keep_array(path: Path, values: npt.NDArray[Any]) -> None:
    """A .npy file, and beside it, last, its hash."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.save(file, values)
    keep_words(path.with_suffix(".json"), {"sha256": sha256(path)})


def whole_array(path: Path) -> npt.NDArray[Any] | None:
    """What `keep_array` wrote; None where it is missing, or not as it was written."""
    try:
        as_written = kept_words(path.with_suffix(".json"))["sha256"] == sha256(path)
    except (ValueError, KeyError, OSError):
        return None
    return np.asarray(np.load(path)) if as_written else None


def keep_words(path: Path, told: dict[str, Any]) -> None:
    """Words as JSON, with a hash of them."""
    write_text(path, json.dumps({"told": told, "digest": digest(told)}))


def kept_words(path: Path) -> dict[str, Any]:
    """What `keep_words` wrote.

    Raises:
        ValueError, OSError: they are missing or others.
    """
    found = read_json(path)
    told: dict[str, Any] = found.get("told") or {}
    if digest(told) != found.get("digest"):
        raise ValueError(f"{path} is not as it was written")
    return told
