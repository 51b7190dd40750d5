"""PyTorch files (.pt, .pth, .ckpt, .bin): two containers around a pickle and the bytes of its storages.

The pickle is read by `Machine`, which runs nothing; storages come from the container, which must hold every byte that
is claimed. A zip's checksums are checked as its entries are read. torch.load is not asked: what it lets through is more
than weights, and it reads no checksum.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ddim.checkpoints.safety.machine import Machine
from ddim.checkpoints.safety.persistent import MARKER, read_parts
from ddim.checkpoints.safety.values import CodeNeededError, Unsafe
from ddim.refused import Refused

MAGIC = 0x1950A86A20F9469CFC6C  # torch.save's first pickle before PyTorch 1.6
MAX_PICKLE = 256 * 2**20
MAX_ENTRIES = 200_000
MOST_TIED = 4  # files' sizes that tensors may claim: they share storages (tied weights, an average begun as a copy)
REMEDY = "on a machine where you trust it, load it and torch.save only the state dict"
DAMAGED = (
    pickle.UnpicklingError, zipfile.BadZipFile, EOFError, RuntimeError, ValueError, KeyError, IndexError,
    TypeError, AttributeError, MemoryError, AssertionError, OverflowError, RecursionError, NotImplementedError,
    StopIteration, struct.error, OSError,
)  # fmt: skip


def read_torch(path: Path) -> Any:
    """What torch.save wrote: tensors on the CPU, in dicts, lists and tuples of plain values.

    Raises:
        Refused: not a PyTorch file, damaged, needs code to be read, or claims more than it holds.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
        _sniff(path, head)
        file.seek(0)
        try:
            if MARKER in head:
                value, claimed = read_parts(file, size, _read_legacy)
            else:
                value, claimed = (_read_zip if head.startswith(b"PK") else _read_legacy)(file, size)
        except CodeNeededError as error:
            raise Unsafe(
                f"{path} needs code execution to be read (it names {_line(error)}), so it is refused; {REMEDY}"
            ) from None
        except Unsafe as error:
            raise Unsafe(f"{path} is refused: {error}") from None
        except DAMAGED as error:
            raise Refused(f"{path} is damaged or cut short: {_line(error)}") from None
    if claimed > MOST_TIED * size:
        raise Unsafe(f"{path} is refused: its tensors claim {claimed} bytes in a file of {size}")
    return value


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


def _read_zip(file: BinaryIO, size: int) -> tuple[Any, int]:
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        _check_entries(archive.infolist(), size)
        pickles = [n for n in entries if n.endswith("/data.pkl") and n.count("/") == 1]
        if any("/code/" in n for n in entries):
            raise Unsafe(f"it is a TorchScript program, not weights; {REMEDY}")
        if len(pickles) != 1:
            raise Unsafe("it is a zip archive, but not one that torch.save wrote")
        if entries[pickles[0]].file_size > MAX_PICKLE:
            raise Unsafe(f"it holds a pickle of {entries[pickles[0]].file_size} bytes; no checkpoint does")
        root = pickles[0].removesuffix("data.pkl")
        if root + "byteorder" in entries and archive.read(root + "byteorder") != b"little":
            raise Unsafe("its numbers are big-endian; save it again on a machine of today")

        def elements(key: str, dtype: torch.dtype, items: int) -> Tensor:
            entry, nbytes = entries.get(f"{root}data/{key}"), items * dtype.itemsize
            if entry is None:
                raise Unsafe(f"it names a storage {key!r} that it does not hold")
            if nbytes > entry.file_size:
                raise Unsafe(f"storage {key} claims {nbytes} bytes and holds {entry.file_size}")
            with archive.open(entry) as stream:
                return _filled(stream, entry.file_size)[:nbytes].view(dtype)

        machine = Machine(io.BytesIO(archive.read(pickles[0])), _once(elements))
        value = machine.load()
        for name in entries:
            if not name.startswith(f"{root}data/"):
                archive.read(name)  # the rest says little, but its checksums say whether the file is whole
        return value, machine.nbytes


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    if len(entries) > MAX_ENTRIES:
        raise Unsafe(f"it holds {len(entries)} entries; no checkpoint does")
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            raise Unsafe(f"it holds a file named {entry.filename!r}, which would leave its folder")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise Unsafe(f"it is compressed inside ({entry.filename}), which torch.save never does")
    claimed = sum(e.file_size for e in entries)
    if claimed > size:
        raise Unsafe(f"it claims {claimed} bytes of content in a file of {size}")


def _read_legacy(file: BinaryIO, size: int, kind: type[Machine] = Machine) -> tuple[Any, int]:
    """Five pickles (magic number, version, facts of the machine, content, keys of the storages), then the storages."""
    sizes: dict[str, tuple[torch.dtype, int]] = {}

    def promised(key: str, dtype: torch.dtype, items: int) -> Tensor:
        sizes[key] = dtype, items
        if sum(n * d.itemsize for d, n in sizes.values()) > size:
            raise Unsafe(f"it claims more bytes of weights than the {size} of the file; truncated?")
        return torch.empty(items, dtype=dtype, device="meta")

    first = Machine(file, _once(promised))
    _check_magic(file, first)
    if first.load() != 1001 or first.load().get("little_endian") is not True:
        raise Unsafe("it was written in an unknown version, or on a big-endian machine")
    begin = file.tell()
    kind(file, _once(promised)).load()
    keys = first.load()
    if not isinstance(keys, list) or set(keys) != set(sizes) or len(keys) != len(sizes):
        raise Unsafe("it does not hold the storages that it names")
    storages = {key: _legacy_storage(file, *sizes[key]) for key in keys}
    if file.read(1):
        raise Unsafe("it goes on after its last storage")
    file.seek(begin)
    machine = kind(file, lambda key, dtype, items: storages[key])
    return machine.load(), machine.nbytes


def _check_magic(file: BinaryIO, machine: Machine) -> None:
    try:
        magic = machine.load()
    except (Unsafe, CodeNeededError, *DAMAGED):
        magic = None
    if magic != MAGIC:
        file.seek(0)
        names = ", ".join(_globals(file)) or "Python objects"
        raise Unsafe(f"it is a plain pickle: reading it means running code (it names {names}); {REMEDY}")


def _legacy_storage(file: BinaryIO, dtype: torch.dtype, items: int) -> Tensor:
    (told,) = struct.unpack("<q", file.read(8))
    if told != items:
        raise Unsafe(f"a storage claims {items} elements in one place and {told} in another")
    return _filled(file, items * dtype.itemsize).view(dtype)


def _filled(stream: Any, nbytes: int) -> Tensor:
    """So many bytes of a stream, read to its end where that is an entry: only then is its checksum checked."""
    raw = torch.empty(nbytes, dtype=torch.uint8)
    into, at = memoryview(raw.numpy()), 0  # type: ignore[arg-type]  # an array is a buffer
    while at < nbytes:
        got = stream.readinto(into[at : at + 2**24])
        if not got:
            raise EOFError("a storage is cut short")
        at += got
    if isinstance(stream, zipfile.ZipExtFile):
        stream.read(1)
    return raw


def _once(make: Callable[[str, torch.dtype, int], Tensor]) -> Callable[[str, torch.dtype, int], Tensor]:
    """Each storage is read once; whoever names it again must mean the same."""
    made: dict[str, Tensor] = {}

    def known(key: str, dtype: torch.dtype, items: int) -> Tensor:
        if key not in made:
            made[key] = make(key, dtype, items)
        if made[key].dtype != dtype or len(made[key]) != items:
            raise Unsafe(f"storage {key} is claimed twice, and differently")
        return made[key]

    return known


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
