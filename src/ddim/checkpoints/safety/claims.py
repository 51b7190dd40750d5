"""What a pickle claims, told by walking it with an unpickler that can build nothing but inert stand-ins."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddim.refused import Refused

ITEMSIZE = {
    "DoubleStorage": 8, "LongStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "FloatStorage": 4,
    "IntStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1,
    "BoolStorage": 1, "UntypedStorage": 1,
}  # fmt: skip


class Unsafe(Refused):
    """A file that is understood well enough to say no to it."""


@dataclass
class Claims:
    """What a pickle says it holds: bytes of every storage, and the classes it names."""

    storages: dict[str, int] = field(default_factory=dict)  # key -> bytes
    names: set[str] = field(default_factory=set)


@dataclass
class Storage:
    """Stands for a storage of so many elements."""

    items: int


class _Stub:
    """Stands for any class of the pickle; building and filling it does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Stub:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> _Stub:
        return self

    def append(self, value: Any) -> None:
        pass

    extend = add = append


class Inert(pickle._Unpickler):  # type: ignore[name-defined,misc]  # the pure-Python one: its memo is a dict, so no
    # opcode can make it allocate; it calls nothing but the stand-ins that find_class returns
    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")
        self.claims = Claims()

    def find_class(self, module: str, name: str) -> Any:
        self.claims.names.add(f"{module}.{name}")
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return _rebuild
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return _Stub
        if module.startswith("torch") and name.startswith("_rebuild"):
            raise Unsafe(f"it holds tensors of a kind no UNet has ({name})")
        return type(name, (_Stub,), {})

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[4], int)):
            raise Unsafe("it names its storages in an unknown way")
        itemsize = ITEMSIZE.get(getattr(pid[1], "__name__", ""))
        if itemsize is None:
            raise Unsafe(f"it holds storages of an unknown type {getattr(pid[1], '__name__', pid[1])!r}")
        if pid[4] < 0:
            raise Unsafe(f"a storage claims {pid[4]} elements")
        key = str(pid[2])
        self.claims.storages[key] = max(self.claims.storages.get(key, 0), pid[4] * itemsize)
        return Storage(pid[4])


def _rebuild(storage: Any, offset: Any, size: Any, *rest: Any) -> _Stub:
    """Stands for a tensor: its elements must lie within its storage, and no element be used twice."""
    if not isinstance(storage, Storage) or not isinstance(size, tuple):
        raise Unsafe("a tensor without a storage or a size")
    if any(not isinstance(n, int) or n < 0 for n in (offset, *size)) or len(size) > 16:
        raise Unsafe(f"a tensor claims the impossible size {size}")
    if math.prod(size) > storage.items:
        raise Unsafe(f"a tensor claims {math.prod(size)} elements {size} of a storage of {storage.items}")
    return _Stub()


def look_through(path: Path, file: Any) -> Claims:
    """The claims of the pickle that begins here.

    Raises:
        Unsafe: a tensor larger than its storage, or what no checkpoint of weights holds.
    """
    reader = Inert(file)
    try:
        reader.load()
    except Unsafe as error:
        raise Unsafe(f"{path} is refused: {error}") from None
    return reader.claims
