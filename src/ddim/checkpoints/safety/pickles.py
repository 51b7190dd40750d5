"""PyTorch files (.pt, .pth, .ckpt, .bin), looked through before torch reads them.

The pickle inside is first walked by an unpickler that can build nothing but inert stand-ins: it tells which
classes the file names and how many bytes every storage and tensor claims. Only when every claim fits into the
file does `torch.load(weights_only=True)` see it.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch

from ddim.refused import Refused

MAGIC = 0x1950A86A20F9469CFC6C  # torch.save's first pickle before PyTorch 1.6
MAX_PICKLE = 256 * 2**20
MAX_ENTRIES = 200_000
REMEDY = "on a machine where you trust it, load it and torch.save only the state dict"
DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError, KeyError, IndexError,
    TypeError, AttributeError, MemoryError, AssertionError, OverflowError, RecursionError, NotImplementedError,
    struct.error,
)  # fmt: skip
ITEMSIZE = {
    "DoubleStorage": 8, "LongStorage": 8, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "FloatStorage": 4,
    "IntStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1,
    "BoolStorage": 1, "UntypedStorage": 1,
}  # fmt: skip


def read_torch(path: Path) -> Any:
    """What torch.save wrote, without running code and without more memory than the file has bytes.

    Raises:
        Refused: not a PyTorch file, damaged, needs code to be read, or claims more than it holds.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
        _sniff(path, head)
        file.seek(0)
        zipped = head.startswith(b"PK")
        try:
            if zipped:
                _check_zip(path, file, size)
            else:
                _check_legacy(path, file, size)
        except RefusedError:
            raise
        except (*DAMAGED, OSError) as error:
            raise Refused(f"{path} is damaged or cut short: {_line(error)}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as error:
        raise Refused(f"{path} needs code execution to be read, refused ({_line(error)}); {REMEDY}") from None
    except DAMAGED as error:
        raise Refused(f"{path} is damaged or cut short: {_line(error)}") from None


class RefusedError(Refused):
    """A file that is understood well enough to say no to it."""


def _sniff(path: Path, head: bytes) -> None:
    if not head:
        raise Refused(f"{path} is empty")
    if head.startswith(b"version https://git-lfs"):
        raise Refused(f"{path} is a git-lfs pointer, not the file itself; run git lfs pull")
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return
    text = not (set(head) - set(range(32, 127)) - {9, 10, 13}) or head.lstrip()[:1] == b"<"
    what = "a text file (a web page or an error message saved under this name?)" if text else "not a PyTorch file"
    raise Refused(f"{path} is {what}")


# -- the two containers --------------------------------------------------------------------------------


def _check_zip(path: Path, file: BinaryIO, size: int) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise RefusedError(f"{path} holds {len(entries)} entries; no checkpoint does")
        for entry in entries:
            name = PurePosixPath(entry.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts:
                raise RefusedError(
                    f"{path} holds a file named {entry.filename!r}, which would leave its folder; refused"
                )
            if entry.compress_type != zipfile.ZIP_STORED:
                raise RefusedError(
                    f"{path} is compressed inside ({entry.filename}), which torch.save never does; refused"
                )
        claimed = sum(e.file_size for e in entries)
        if claimed > size:
            raise RefusedError(f"{path} claims {claimed} bytes of content in a file of {size}; refused")
        by_name = {e.filename: e for e in entries}
        pickles = [n for n in by_name if n.endswith("/data.pkl") and n.count("/") == 1]
        if any("/code/" in n for n in by_name):
            raise RefusedError(f"{path} is a TorchScript program, not weights; refused; {REMEDY}")
        if len(pickles) != 1:
            raise RefusedError(f"{path} is a zip archive, but not one that torch.save wrote")
        if by_name[pickles[0]].file_size > MAX_PICKLE:
            raise RefusedError(f"{path} holds a pickle of {by_name[pickles[0]].file_size} bytes; no checkpoint does")
        root = pickles[0].removesuffix("data.pkl")
        claims = _look_through(path, io.BytesIO(archive.read(pickles[0])))
        for key, nbytes in claims.storages.items():
            entry_found = by_name.get(f"{root}data/{key}")
            if entry_found is None:
                raise RefusedError(f"{path} names a storage {key!r} that it does not hold")
            if nbytes > entry_found.file_size:
                raise RefusedError(
                    f"{path}: storage {key} claims {nbytes} bytes and holds {entry_found.file_size}; refused"
                )


def _check_legacy(path: Path, file: BinaryIO, size: int) -> None:
    if _first_object(file) != MAGIC:
        file.seek(0)
        names = ", ".join(_globals(file)) or "Python objects"
        raise RefusedError(
            f"{path} is a plain pickle: reading it means running code (it names {names}), so it is refused; {REMEDY}"
        )
    for _ in range(2):  # protocol version, sys_info
        _Inert(file).load()
    claims = _look_through(path, file)
    total = sum(claims.storages.values())
    if total > size:
        raise RefusedError(f"{path} claims {total} bytes of weights in a file of {size}; truncated, or refused")


def _first_object(file: BinaryIO) -> Any:
    try:
        return _Inert(file).load()
    except DAMAGED:
        return None


def _globals(file: BinaryIO, most: int = 3) -> list[str]:
    """The first few classes a pickle names."""
    found: list[str] = []
    strings: list[str] = []
    try:
        for op, arg, _ in pickletools.genops(file):
            if op.name == "GLOBAL":
                found.append(str(arg).replace(" ", "."))
            elif op.name == "STACK_GLOBAL" and len(strings) >= 2:
                found.append(".".join(strings[-2:]))
            elif "UNICODE" in op.name:
                strings.append(str(arg))
            if len(found) >= most:
                break
    except DAMAGED:
        pass  # an error message needs no more names than the readable part gives
    return list(dict.fromkeys(found))


# -- looking through a pickle ----------------------------------------------------------------------------


@dataclass
class _Claims:
    storages: dict[str, int] = field(default_factory=dict)  # key -> bytes
    names: set[str] = field(default_factory=set)


@dataclass
class _Storage:
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


class _Inert(pickle._Unpickler):  # type: ignore[name-defined,misc]  # the pure-Python one: its memo is a dict, so no
    # opcode can make it allocate; it calls nothing but the stand-ins that find_class returns
    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="latin1")
        self.claims = _Claims()

    def find_class(self, module: str, name: str) -> Any:
        self.claims.names.add(f"{module}.{name}")
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3"):
            return _rebuild
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return _Stub
        if module.startswith("torch") and name.startswith("_rebuild"):
            raise RefusedError(f"it holds tensors of a kind no UNet has ({name})")
        return type(name, (_Stub,), {})

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[4], int)):
            raise RefusedError("it names its storages in an unknown way")
        itemsize = ITEMSIZE.get(getattr(pid[1], "__name__", ""))
        if itemsize is None:
            raise RefusedError(f"it holds storages of an unknown type {getattr(pid[1], '__name__', pid[1])!r}")
        if pid[4] < 0:
            raise RefusedError(f"a storage claims {pid[4]} elements")
        key = str(pid[2])
        self.claims.storages[key] = max(self.claims.storages.get(key, 0), pid[4] * itemsize)
        return _Storage(pid[4])


def _rebuild(storage: Any, offset: Any, size: Any, *rest: Any) -> _Stub:
    """Stands for a tensor: its elements must lie within its storage, and no element be used twice."""
    if not isinstance(storage, _Storage) or not isinstance(size, tuple):
        raise RefusedError("a tensor without a storage or a size")
    if any(not isinstance(n, int) or n < 0 for n in (offset, *size)) or len(size) > 16:
        raise RefusedError(f"a tensor claims the impossible size {size}")
    if math.prod(size) > storage.items:
        raise RefusedError(f"a tensor claims {math.prod(size)} elements {size} of a storage of {storage.items}")
    return _Stub()


def _look_through(path: Path, file: Any) -> _Claims:
    reader = _Inert(file)
    try:
        reader.load()
    except RefusedError as error:
        raise RefusedError(f"{path} is refused: {error}") from None
    return reader.claims


def tensors(value: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """Every tensor in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        yield value
    elif depth and isinstance(value, (dict, list, tuple)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from tensors(inner, depth - 1)


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]
