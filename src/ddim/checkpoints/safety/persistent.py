"""NVlabs' pickles of whole modules, read without their program: class names, states and constructor arguments.

Such a file holds the text of its own source and the name of a function that would run it. Here that name makes a
`Persisted`, and the text is passed over unread. What is added to the machine's lists stands in this file: a module's
state, a dict of modules, a set, and numpy's plain numbers. All else is refused as everywhere.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from ddim.checkpoints.safety.machine import CHANGES, MADE, Machine
from ddim.checkpoints.safety.values import Name, Unsafe, named

MARKER = b"torch_utils.persistence"
PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
ADDED = {
    PERSISTENT: Name("persistent", None),
    ("torch.storage", "_load_from_bytes"): Name("stored", None),
    ("torch.nn.modules.container", "ModuleDict"): Name("part", "ModuleDict"),
    ("dnnlib.util", "EasyDict"): Name("part", "EasyDict"),
    ("numpy", "dtype"): Name("numpy dtype", None),
    ("numpy.core.multiarray", "scalar"): Name("numpy number", None),
    ("numpy._core.multiarray", "scalar"): Name("numpy number", None),
}
NUMBERS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}
StorageIn = Callable[[bytes], Tensor]


class Persisted(NamedTuple):
    """A module, or another object of such a file: the name of its class, and its attributes."""

    class_name: str
    state: dict[str, Any]


class _Number(NamedTuple):
    """numpy's type of a number."""

    code: str


class PersistentMachine(Machine):
    """One pickle with modules in it; `stored` reads the elements that lie in it as bytes."""

    def __init__(self, file: BinaryIO, stored: StorageIn) -> None:
        super().__init__(file, _no_storage)
        self._stored = stored

    def _named(self, module: Any, name: Any) -> Any:
        known = isinstance(module, str) and isinstance(name, str)
        return ADDED[module, name] if known and (module, name) in ADDED else named(module, name)

    def _built(self, called: Any, args: Any) -> Any:
        if not isinstance(called, Name) or not isinstance(args, tuple):
            raise Unsafe("it calls what cannot be called")
        if called.kind == "persistent":
            return _reconstructed(*args) if len(args) == 1 else _odd()
        if called.kind == "stored":
            return Name("elements", self._stored(args[0])) if len(args) == 1 and isinstance(args[0], bytes) else _odd()
        if called.kind == "numpy dtype":
            return _Number(args[0]) if args and args[0] in NUMBERS else _odd()
        if called.kind == "numpy number":
            return _number(*args) if len(args) == 2 else _odd()
        return super()._built(called, args)


class StorageMachine(Machine):
    """The pickle around the elements of one storage."""

    @staticmethod
    def _finished(value: Any) -> Any:
        if not isinstance(value, Name) or value.kind != "elements":
            raise Unsafe("it holds bytes that are no storage of weights")
        return value.value


def read_parts(file: BinaryIO, size: int, legacy: Callable[..., tuple[Any, int]]) -> tuple[Any, int]:
    """The value of such a pickle, and the bytes its tensors claim.

    Args:
        legacy: reads the container of old that each storage lies in.
    """

    def stored(data: bytes) -> Tensor:
        found: Tensor = legacy(io.BytesIO(data), len(data), StorageMachine)[0]
        return found

    machine = PersistentMachine(file, stored)
    value = machine.load()
    if file.read(1):
        raise Unsafe("it goes on after its end")
    return value, machine.nbytes


def _reconstructed(meta: Any) -> Persisted:
    known = isinstance(meta, dict) and {"type", "class_name", "state"} <= set(meta)
    if not known or meta["type"] != "class" or not isinstance(meta["class_name"], str):
        raise Unsafe("it holds an object of an unknown kind")
    if not isinstance(meta["state"], dict):
        raise Unsafe(f"its {meta['class_name'][:80]} has no state of names and values")
    return Persisted(meta["class_name"], meta["state"])


def _number(kind: Any, data: Any) -> Any:
    if not isinstance(kind, _Number) or not isinstance(data, bytes):
        return _odd()
    code = "<" + NUMBERS[kind.code]
    if len(data) != struct.calcsize(code):
        return _odd()
    return struct.unpack(code, data)[0]


def _new(stack: list[Any]) -> None:
    args, called = stack.pop(), stack.pop()
    if not isinstance(called, Name) or called.kind != "part" or args != ():
        raise Unsafe("it makes an object of an unknown kind")
    stack.append({} if called.value == "EasyDict" else Persisted(called.value, {}))


def _build(stack: list[Any]) -> None:
    if isinstance(stack[-2], _Number):
        stack.pop()
    elif isinstance(stack[-2], Persisted) and isinstance(stack[-1], dict):
        stack[-2].state.update(stack[-1])
        stack.pop()
    else:
        CHANGES["BUILD"](stack)


def _no_storage(key: str, dtype: torch.dtype, items: int) -> Tensor:
    raise Unsafe("it names a storage that it does not hold")


def _odd() -> Any:
    raise Unsafe("it holds a number or an object in an unknown way")


PersistentMachine.made = {**MADE, "EMPTY_SET": list}
PersistentMachine.changes = {**CHANGES, "ADDITEMS": CHANGES["APPENDS"], "NEWOBJ": _new, "BUILD": _build}
