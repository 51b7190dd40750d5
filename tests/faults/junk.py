"""Junk to put where something is expected: in place of a JSON value, of a word of argv, of bytes."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEEP = 100_000
ESC = "\x1b[31mred\x1b[0m\x07"


class Text(str):
    """JSON as it stands: what json.dumps would not write."""


JUNK: dict[str, Any] = {
    "null": None, "true": True, "false": False, "zero": 0, "minus": -1, "half": 0.5, "large": 10**18,
    "word": "word", "empty word": "", "escape": ESC, "long word": "x" * 50_000, "number as word": "5",
    "up": "../../canary", "empty list": [], "list": [1, 2, 3], "list of lists": [[]], "list of null": [None],
    "list of words": ["a", ESC], "mapping": {"a": 1}, "empty mapping": {},
    "NaN": Text("NaN"), "infinite": Text("-Infinity"), "1e999": Text("1e999"),
    "5000 digits": Text("1" * 5000), "400 digits": Text("1" * 400),
    "deep list": Text("[" * DEEP + "]" * DEEP), "deep mapping": Text('{"a":' * DEEP + "1" + "}" * DEEP),
}  # fmt: skip
MISSING = "missing"
MISTYPED = ["null", "true", "zero", "minus", "half", "large", "word", "escape", "list", "mapping", "NaN", "1e999",
            "400 digits", "number as word", "empty list", "list of lists"]  # fmt: skip

FILES: dict[str, bytes] = {
    "empty": b"", "text": b"no json", "bytes": bytes(range(256)), "list": b"[1, 2]", "number": b"7", "null": b"null",
    "word": b'"word"', "cut": b'{"a": [1, 2', "twice": b"{}{}", "empty mapping": b"{}", "zeros": bytes(5000),
    "utf-16": '{"a": 1}'.encode("utf-16"), "BOM": b"\xef\xbb\xbf{}", "lone surrogate": b'{"a": "\\ud800"}',
    "deep": b"[" * DEEP + b"]" * DEEP, "deep mapping": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
}  # fmt: skip


def places(value: Any, depth: int = 3, at: tuple = ()) -> Iterator[tuple]:
    """Every key of a JSON object, and of the objects in it; of lists the first entry and the whole."""
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        if depth > 1:
            yield from places(inner, depth - 1, (*at, key))


def with_junk(value: Any, at: tuple, kind: str) -> str:
    """The JSON text of a value with junk in one place."""
    copy = json.loads(json.dumps(value))
    place = copy
    for key in at[:-1]:
        place = place[key]
    if kind == MISSING:
        del place[at[-1]]
        return json.dumps(copy)
    junk = JUNK[kind]
    mark = "@@here@@"
    place[at[-1]] = mark if isinstance(junk, Text) else junk
    return json.dumps(copy).replace(json.dumps(mark), junk) if isinstance(junk, Text) else json.dumps(copy)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes with a few of them changed, cut, doubled or replaced by zeros."""
    if not content:
        return b"x"
    at, kind = rng.randrange(len(content)), rng.randrange(5)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[at // 2 :]
    if kind == 2:
        return content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :]
    out = bytearray(content)
    for _ in range(1 if kind == 3 else 20):
        out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)


def put(path: Path, content: bytes | str) -> None:
    """A file, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
