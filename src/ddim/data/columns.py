"""What the columns of a table must hold to be images and class numbers, and the names of the classes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ddim.refused import Refused
from ddim.stored import from_json

MANY, SPARSE = 1000, 10  # more classes than this, and than so many times those that occur, are no class numbers


def check_images(file: Path, column: str, schema: Any) -> None:
    """Bytes, or structs with bytes as `datasets` writes them; a column of nulls is read, and its rows refused."""
    from pyarrow import types

    refuse_twice(str(file), column, schema)
    if column not in schema.names:
        raise Refused(
            f"{file} has no column {column!r}, as the first file has; its columns are {', '.join(schema.names)}"
        )
    kind = schema.field(column).type
    if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        kind = kind.field("bytes").type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_binary(kind) or types.is_large_binary(kind) or types.is_null(kind)):
        raise Refused(
            f"column {column!r} of {file} holds {kind}; it must hold image files as bytes, or structs with 'bytes'"
        )


def refuse_twice(name: str, column: str, schema: Any) -> None:
    """Nobody can say which of two columns of one name is meant."""
    if schema.names.count(column) > 1:
        raise Refused(f"{name} has {schema.names.count(column)} columns {column!r}; keep one of them")


def check_labels(name: str, column: str, schema: Any) -> None:
    """Whole numbers; nulls only are left to `numbered`, which refuses them by name."""
    from pyarrow import types

    refuse_twice(name, column, schema)
    kind = schema.field(column).type
    if not (types.is_integer(kind) or types.is_boolean(kind) or types.is_null(kind)):
        raise Refused(
            f"column {column!r} of {name} holds {kind}, not class numbers 0, 1, ...; renumber it, "
            "or give `labels` ignore"
        )


def class_names(files: Sequence[Path], tables: Sequence[Any], label: str) -> tuple[str, ...]:
    """The names the file's `datasets` metadata gives, else "0".."K-1" for the labels found."""
    import pyarrow

    found: set[Any] = set()
    for file, table in zip(files, tables, strict=True):
        if label not in table.schema_arrow.names:
            raise Refused(f"{file} has no column {label!r}, as the first file has; add it, or give `labels` ignore")
        check_labels(str(file), label, table.schema_arrow)
        try:
            found |= set(table.read(columns=[label]).column(label).unique().to_pylist())
        except (pyarrow.ArrowException, OSError) as error:
            raise Refused(f"{file} cannot be read as Parquet: {first_line(error)}") from None
    about: Any = (tables[0].schema_arrow.metadata or {}).get(b"huggingface")
    try:
        about = from_json(about, str(files[0])) if about else None
    except Refused:
        about = None
    for key in ("info", "features", label, "names"):
        about = about.get(key) if isinstance(about, dict) else None
    names = tuple(str(n) for n in about) if isinstance(about, list) else ()
    where = str(files[0] if len(files) == 1 else files[0].parent)
    return numbered(found, where, names)


def numbered(found: Collection[Any], name: str, names: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The names, which must be enough for the labels found; without names, "0".."K-1"."""
    odd = [k for k in found if not isinstance(k, int) or k < 0 or (names and k >= len(names))]
    if odd:
        numbers = f"0..{len(names) - 1}, one for each of its names" if names else "class numbers 0, 1, ..."
        raise Refused(f"the labels of {name} must be {numbers}, but one is {odd[0]!r}; or give `labels` ignore")
    classes = max(len(names), max(found, default=-1) + 1)
    if classes > MANY and classes > SPARSE * len(found):
        raise Refused(
            f"the labels of {name} go up to {classes - 1}, but only {len(found)} different ones occur; "
            f"number them 0..{len(found) - 1}, or give `labels` ignore"
        )
    return names or tuple(str(k) for k in range(classes))


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
