"""PyTorch files (.pt, .pth, .ckpt, .bin), looked through before torch reads them.

The pickle inside is first walked by an unpickler that can build nothing but inert stand-ins: it tells which
classes the file names and how many bytes every storage and tensor claims. Only when every claim fits into the
file does `torch.load(weights_only=True)` see it.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch

from ddim.checkpoints.safety.claims import Inert, Unsafe, look_through
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
        except Unsafe:
            raise
        except (*DAMAGED, OSError) as error:
            raise Refused(f"{path} is damaged or cut short: {_line(error)}") from None
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as error:
        raise Refused(f"{path} needs code execution to be read, refused ({_line(error)}); {REMEDY}") from None
    except DAMAGED as error:
        raise Refused(f"{path} is damaged or cut short: {_line(error)}") from None


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
            raise Unsafe(f"{path} holds {len(entries)} entries; no checkpoint does")
        for entry in entries:
            name = PurePosixPath(entry.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts:
                raise Unsafe(f"{path} holds a file named {entry.filename!r}, which would leave its folder; refused")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise Unsafe(f"{path} is compressed inside ({entry.filename}), which torch.save never does; refused")
        claimed = sum(e.file_size for e in entries)
        if claimed > size:
            raise Unsafe(f"{path} claims {claimed} bytes of content in a file of {size}; refused")
        by_name = {e.filename: e for e in entries}
        pickles = [n for n in by_name if n.endswith("/data.pkl") and n.count("/") == 1]
        if any("/code/" in n for n in by_name):
            raise Unsafe(f"{path} is a TorchScript program, not weights; refused; {REMEDY}")
        if len(pickles) != 1:
            raise Unsafe(f"{path} is a zip archive, but not one that torch.save wrote")
        if by_name[pickles[0]].file_size > MAX_PICKLE:
            raise Unsafe(f"{path} holds a pickle of {by_name[pickles[0]].file_size} bytes; no checkpoint does")
        root = pickles[0].removesuffix("data.pkl")
        claims = look_through(path, io.BytesIO(archive.read(pickles[0])))
        for key, nbytes in claims.storages.items():
            entry_found = by_name.get(f"{root}data/{key}")
            if entry_found is None:
                raise Unsafe(f"{path} names a storage {key!r} that it does not hold")
            if nbytes > entry_found.file_size:
                raise Unsafe(f"{path}: storage {key} claims {nbytes} bytes and holds {entry_found.file_size}; refused")


def _check_legacy(path: Path, file: BinaryIO, size: int) -> None:
    if _first_object(file) != MAGIC:
        file.seek(0)
        names = ", ".join(_globals(file)) or "Python objects"
        raise Unsafe(
            f"{path} is a plain pickle: reading it means running code (it names {names}), so it is refused; {REMEDY}"
        )
    for _ in range(2):  # protocol version, sys_info
        Inert(file).load()
    claims = look_through(path, file)
    total = sum(claims.storages.values())
    if total > size:
        raise Unsafe(f"{path} claims {total} bytes of weights in a file of {size}; truncated, or refused")


def _first_object(file: BinaryIO) -> Any:
    try:
        return Inert(file).load()
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


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:160]
