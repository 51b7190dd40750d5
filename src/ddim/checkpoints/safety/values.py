"""What a checkpoint's pickle may name and hold: tensors, OrderedDict and plain values, within the file's own size."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ddim.refused import Refused

STORAGES = {
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128, "FloatStorage": torch.float32, "IntStorage": torch.int32,
    "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "ShortStorage": torch.int16,
    "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool, "UntypedStorage": torch.uint8,
}  # fmt: skip
REBUILDS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter")
DTYPES = {str(d).removeprefix("torch."): d for d in vars(torch).values() if isinstance(d, torch.dtype)}
MOST_VALUES = 4_000_000  # each counted as often as it is reached
DEEPEST = 32
LARGEST = 2**48  # number in a size
LARGEST_KEY = 2**32  # larger whole numbers can be chosen so that all of them fall on one place of a dict


class Unsafe(Refused):
    """A file that is understood well enough to say no to it."""


class CodeNeededError(Exception):
    """It names what only code could build."""


class Name(NamedTuple):
    """What a pickle names: one of the few things on the lists."""

    kind: str
    value: Any


class Mark:
    """Where the items of what comes next begin."""


# -- what may be named ---------------------------------------------------------------------------------


def named(module: Any, name: Any) -> Any:
    """What a pickle means by that name; what it may not name needs code."""
    known = isinstance(module, str) and isinstance(name, str)
    if known and module == "torch._utils" and name in REBUILDS:
        return Name("rebuild", name)
    if known and module in ("torch", "torch.storage") and name in STORAGES:
        return Name("storage", STORAGES[name])
    if (module, name) == ("collections", "OrderedDict"):
        return Name("OrderedDict", None)
    if module == "torch" and known and name in DTYPES:
        return DTYPES[name]
    if (module, name) in PLAIN:
        return Name("plain", PLAIN[module, name])
    if known and module.startswith("torch") and name.startswith("_rebuild"):
        raise Unsafe(f"it holds tensors of a kind no UNet has ({name})")
    raise CodeNeededError(f"{module}.{name}")


def _encoded(text: Any = "", codec: Any = "latin1") -> bytes:
    """Bytes, as pickles of Python 2's time spell them."""
    if not isinstance(text, str) or codec != "latin1":
        raise Unsafe("it spells bytes in an unknown way")
    return text.encode("latin1")


def _sizes(sizes: Any = ()) -> tuple[Any, ...]:
    if not isinstance(sizes, tuple):
        raise Unsafe("it holds a size that is none")
    return sizes


PLAIN: dict[tuple[str, str], Callable[..., Any]] = {
    ("_codecs", "encode"): _encoded, ("torch", "Size"): _sizes, ("torch", "device"): lambda *args: args,
}  # fmt: skip


# -- what is built -------------------------------------------------------------------------------------


def tensor(elements: Any, offset: Any, size: Any, stride: Any, *, dtype: Any) -> Tensor:
    """Elements of a storage as a tensor: every index lies in it, and they are no more than it holds."""
    if not isinstance(elements, Name) or elements.kind != "elements":
        raise Unsafe("a tensor without a storage")
    base: Tensor = elements.value
    if dtype is not None:
        if not isinstance(dtype, torch.dtype) or base.dtype != torch.uint8 or len(base) % dtype.itemsize:
            raise Unsafe("a tensor of an unknown type")
        base = base.view(dtype)
    whole = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= 16
    if not whole or any(type(n) is not int or not 0 <= n < LARGEST for n in (offset, *size, *stride)):
        raise Unsafe(f"a tensor claims the impossible size {str(size)[:80]}")
    count = math.prod(size)
    if count > len(base):
        raise Unsafe(f"a tensor claims {count} elements {size} of a storage of {len(base)}")
    if count and offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= len(base):
        raise Unsafe(f"a tensor of {size} reaches beyond its storage of {len(base)} elements")
    if not count:
        return torch.empty(size, dtype=base.dtype)
    return base.as_strided(size, stride, offset)


def ordered(args: tuple[Any, ...]) -> OrderedDict[Any, Any]:
    """An OrderedDict, empty or of pairs."""
    pairs = args[0] if args else []
    if (
        len(args) > 1
        or not isinstance(pairs, list)
        or any(not isinstance(p, list | tuple) or len(p) != 2 for p in pairs)
    ):
        raise Unsafe("an OrderedDict of what are no pairs")
    return OrderedDict((key(k), v) for k, v in pairs)


def key(value: Any) -> Any:
    """A key of a dict: a name or a number, which is quick to find, and quick to hash."""
    plain = isinstance(value, str | bytes) or value is None
    if plain or (isinstance(value, int | float) and abs(value) < LARGEST_KEY):
        return value
    raise Unsafe(f"it has a key of a dict that is no name or number but a {type(value).__name__}")


def bounded(value: Any) -> Any:
    """The value, unless it is deep, endless, or few bytes that stand for very many values."""
    known: dict[tuple[int, int], int] = {}

    def size(node: Any, depth: int) -> int:
        if depth > DEEPEST:
            raise Unsafe(f"it is nested deeper than {DEEPEST} levels")
        if isinstance(node, Name | Mark):
            raise Unsafe("it holds a name where a value belongs")
        if not isinstance(node, dict | list | tuple):
            return 1
        if (id(node), depth) not in known:
            inside = node.values() if isinstance(node, dict) else node
            known[id(node), depth] = 1 + sum(size(child, depth + 1) for child in inside)
        return known[id(node), depth]

    if size(value, 0) > MOST_VALUES:
        raise Unsafe(f"it stands for more than {MOST_VALUES} values")
    return value
