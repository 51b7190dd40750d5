"""The pickles inside PyTorch's files, read by a machine that knows tensors, OrderedDict and plain values, and no more.

Nothing that a file names is imported or called: what is not on the lists is refused. Python's own unpickler, and
torch's restricted one, build whatever their lists allow at the size the file says, before anybody has looked.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

from ddim.checkpoints.safety.values import CodeNeededError, Mark, Name, Unsafe, bounded, key, named, ordered, tensor

MOST_OPCODES = 4_000_000

StorageOf = Callable[[str, torch.dtype, int], Tensor]
"""(key, type, elements) -> the elements, (elements,); refuses what the file does not hold."""


class Machine:
    """One pickle after another from a file, as plain values and tensors.

    What it knows is on lists: `made` and `changes` by instruction, and what `_named` lets through by name. A kind of
    file that needs more extends them in a class of its own.
    """

    made: ClassVar[Mapping[str, Callable[[], Any]]]
    changes: ClassVar[Mapping[str, Callable[[list[Any]], None]]]

    def __init__(self, file: BinaryIO, storage: StorageOf) -> None:
        self._file, self._storage = file, storage
        self.nbytes = 0  # of all tensors

    def load(self) -> Any:
        """The next pickle's value.

        Raises:
            Unsafe, CodeNeededError: what no checkpoint of weights holds. IndexError, KeyError, ValueError, ..: damaged.
        """
        stack: list[Any] = []
        memo: dict[int, Any] = {}
        arg: Any
        for count, (opcode, arg, _) in enumerate(pickletools.genops(self._file)):
            if count > MOST_OPCODES:
                raise Unsafe(f"its pickle has more than {MOST_OPCODES} instructions; no checkpoint has")
            name = opcode.name
            if name == "STOP":
                return self._finished(stack[-1])
            if name in PUSHED:
                stack.append(arg)
            elif name in self.made:
                stack.append(self.made[name]())
            elif name in MEMOIZED:
                memo[len(memo) if arg is None else arg] = stack[-1]
            elif name in RECALLED:
                stack.append(memo[arg])
            elif name in NAMED:
                stack.append(self._named(*(arg.split(" ", 1) if arg else [stack.pop(-2), stack.pop()])))
            elif name == "BINPERSID":
                stack.append(self._persistent(stack.pop()))
            elif name == "REDUCE":
                args, called = stack.pop(), stack.pop()
                stack.append(self._built(called, args))
            elif name in self.changes:
                self.changes[name](stack)
            elif name not in ("PROTO", "FRAME"):
                raise Unsafe(f"its pickle has the instruction {name}, which no checkpoint of weights needs")
        raise EOFError("the pickle has no end")

    def _named(self, module: Any, name: Any) -> Any:
        return named(module, name)

    @staticmethod
    def _finished(value: Any) -> Any:
        return bounded(value)

    def _persistent(self, pid: Any) -> Name:
        kind = pid[1] if isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage" else None
        if not (isinstance(kind, Name) and kind.kind == "storage" and type(pid[4]) is int and pid[5:] in ((), (None,))):
            raise Unsafe("it names its storages in an unknown way")
        if pid[4] < 0 or not isinstance(pid[2], str):
            raise Unsafe(f"a storage claims {pid[4]} elements")
        return Name("elements", self._storage(pid[2], kind.value, pid[4]))

    def _built(self, called: Any, args: Any) -> Any:
        if not isinstance(called, Name) or not isinstance(args, tuple):
            raise Unsafe("it calls what cannot be called")
        if called.kind == "OrderedDict":
            return ordered(args)
        if called.kind == "plain":
            return called.value(*args)
        if called.kind != "rebuild":
            raise CodeNeededError(called.kind)
        if called.value == "_rebuild_parameter":
            if not args or not isinstance(args[0], Tensor):
                raise Unsafe("a parameter without a tensor")
            return args[0]
        made = tensor(*args[:4], dtype=args[6] if called.value == "_rebuild_tensor_v3" else None)
        self.nbytes += made.numel() * made.element_size()
        return made


def _above_mark(stack: list[Any]) -> list[Any]:
    at = next(i for i in range(len(stack) - 1, -1, -1) if isinstance(stack[i], Mark))
    found = stack[at + 1 :]
    del stack[at:]
    return found


def _set(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], dict):
        raise Unsafe("it fills what is no dict")
    for name, value in zip(items[::2], items[1::2], strict=True):
        stack[-1][key(name)] = value


def _dict(stack: list[Any], items: list[Any]) -> None:
    stack.append({})
    _set(stack, items)


def _extend(stack: list[Any], items: list[Any]) -> None:
    if not isinstance(stack[-1], list):
        raise Unsafe("it fills what is no list")
    stack[-1].extend(items)


def _take(stack: list[Any], n: int) -> list[Any]:
    found = stack[len(stack) - n :]
    if len(found) < n or any(isinstance(v, Mark) for v in found):
        raise IndexError("the pickle takes what is not there")
    del stack[len(stack) - n :]
    return found


def _build(stack: list[Any]) -> None:
    """The state of an object: only OrderedDict has one, a state dict's table of versions, which nothing here needs."""
    state = stack.pop()
    if not isinstance(stack[-1], OrderedDict) or not isinstance(state, dict):
        raise Unsafe("it sets the state of an object that has none")


PUSHED = frozenset({
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES",
    "BINBYTES8",
})  # fmt: skip
MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "EMPTY_DICT": dict, "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple, "MARK": Mark,
}  # fmt: skip
MEMOIZED = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
RECALLED = frozenset({"GET", "BINGET", "LONG_BINGET"})
NAMED = frozenset({"GLOBAL", "STACK_GLOBAL"})
CHANGES: dict[str, Callable[[list[Any]], None]] = {
    "POP": lambda stack: stack.__delitem__(-1),
    "POP_MARK": lambda stack: _above_mark(stack).clear(),
    "TUPLE": lambda stack: stack.append(tuple(_above_mark(stack))),
    "TUPLE1": lambda stack: stack.append(tuple(_take(stack, 1))),
    "TUPLE2": lambda stack: stack.append(tuple(_take(stack, 2))),
    "TUPLE3": lambda stack: stack.append(tuple(_take(stack, 3))),
    "LIST": lambda stack: stack.append(_above_mark(stack)),
    "DICT": lambda stack: _dict(stack, _above_mark(stack)),
    "APPEND": lambda stack: _extend(stack, _take(stack, 1)),
    "APPENDS": lambda stack: _extend(stack, _above_mark(stack)),
    "SETITEM": lambda stack: _set(stack, _take(stack, 2)),
    "SETITEMS": lambda stack: _set(stack, _above_mark(stack)),
    "BUILD": _build,
}

Machine.made, Machine.changes = MADE, CHANGES
