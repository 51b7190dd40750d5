"""Pickles made by hand to hang, to fill the memory or to show somebody else's: refused in one line, at once."""

import io
import struct
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from ddim.checkpoints.safety import read_torch
from ddim.refused import Refused

PROTO, STOP = b"\x80\x02", b"."
ORDERED = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw if len(raw) < 256 else b"\x8b" + struct.pack("<i", len(raw)) + raw


def pair(value: bytes, times: int) -> bytes:
    """A tuple of twice a tuple of twice a ..: few bytes, 2^times leaves."""
    return value + b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(times))


def storage(kind: bytes = b"FloatStorage", key: str = "0", items: int = 1) -> bytes:
    return b"(" + text("storage") + b"ctorch\n" + kind + b"\n" + text(key) + text("cpu") + whole(items) + b"tQ"


def tensor(offset: int, size: tuple[int, ...], stride: tuple[int, ...], of: bytes | None = None) -> bytes:
    sizes, strides = (b"(" + b"".join(map(whole, n)) + b"t" for n in (size, stride))
    start = b"ctorch._utils\n_rebuild_tensor_v2\n("
    return start + (storage() if of is None else of) + whole(offset) + sizes + strides + b"\x89" + ORDERED + b"tR"


def named(value: bytes, key: str = "w") -> bytes:
    return b"}" + text(key) + value + b"s"


def held(path: Path, pickled: bytes, **storages: bytes) -> Path:
    """A PyTorch file around it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", PROTO + pickled + STOP)
        archive.writestr("archive/version", b"3\n")
        for key, raw in (storages or {"_0": bytes(4)}).items():
            archive.writestr(f"archive/data/{key.removeprefix('_')}", raw)
    return path


def test_the_makers_above_make_a_file_that_is_read(tmp_path: Path) -> None:
    path = held(tmp_path / "x.pt", named(tensor(0, (1,), (1,))), _0=struct.pack("<f", 2.5))
    assert torch.equal(read_torch(path)["w"], torch.load(path, weights_only=True)["w"])


ATTACKS = {
    "nested tuples as a key": (b"}" + pair(b")", 100) + b"Ns", "key"),
    "a tuple as a key": (b"}))\x86Ns", "key"),
    "nested tuples as a value": (named(pair(b")", 100)), "nested deeper"),
    "wide tuples": (named(pair(b"(" + b"N" * 60000 + b"t", 20)), "more than"),
    "a list inside itself": (b"]q\x00h\x00a", "nested deeper"),
    "deep lists": (b"]" * 5000 + b"a" * 4999, "nested deeper"),
    "numbers of one hash": (b"}(" + b"".join(whole(k * (2**61 - 1)) + b"N" for k in range(1, 2000)) + b"u", "key"),
    "not a number as a key": (b"}G" + struct.pack(">d", float("nan")) + b"Ns", "key"),
    "an allocating call": (named(b"c__builtin__\nbytearray\n" + whole(5 << 30) + b"\x85R"), "bytearray"),
    "an allocating instruction": (named(b"\x96" + struct.pack("<Q", 4) + b"abcd"), "BYTEARRAY8"),
    "memory nobody wrote": (named(b"ctorch\nFloatTensor\n(" + whole(99) + whole(99) + b"tR"), "FloatTensor"),
    "a tensor without a storage": (named(b"ctorch\nTensor\n)R"), "torch.Tensor"),
    "a state for a tensor": (named(tensor(0, (1,), (1,)) + b"}b"), "state"),
    "a state for a name": (named(b"ctorch._utils\n_rebuild_tensor_v2\n}b"), "state"),
    "a tensor of a size beyond counting": (named(tensor(0, (1 << 4000, 1 << 4000), (1, 1))), "impossible size"),
    "a tensor of repeated numbers": (named(tensor(0, (1000, 1000), (0, 0))), "claims 1000000 elements"),
    "a tensor that reaches beyond": (named(tensor(1, (1,), (1,))), "beyond"),
    "a tensor that steps beyond": (named(tensor(0, (2,), (9,), storage(items=2))), "beyond"),
    "negative strides": (named(tensor(0, (1,), (-1,))), "impossible size"),
    "a storage that is not there": (named(tensor(0, (1,), (1,), storage(key="7"))), "does not hold"),
    "a storage of other elements": (named(tensor(0, (1,), (1,), storage(items=9))), "claims 36 bytes"),
    "a storage of two types": (b"]" + tensor(0, (1,), (1,)) + b"a" + tensor(0, (1,), (1,), storage(b"IntStorage"))
                               + b"a", "twice"),
    "one storage many times": (b"](" + tensor(0, (1000,), (1,), storage(items=1000)) * 300 + b"e", "tensors claim"),
    "a global": (named(b"cos\nsystem\n"), "os.system"),
    "a call": (named(b"cposix\nsystem\n" + text("true") + b"\x85R"), "posix.system"),
    "an object": (named(b"cbuiltins\nobject\n)\x81"), "builtins.object"),
    "an OrderedDict of numbers": (b"ccollections\nOrderedDict\n" + b"K\x05\x85R", "pairs"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_at_once_and_in_little_memory(tmp_path: Path, name: str) -> None:
    pickled, word = ATTACKS[name]
    path = held(tmp_path / "x.pt", pickled, _0=bytes(4000) if "many times" in name or "steps" in name else bytes(4))
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(Refused) as caught:
            read_torch(path)
        took, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert word in message and "x.pt" in message, message
    assert "\n" not in message and "\x1b" not in message and len(message) < 400
    assert "weights_only" not in message, "torch's own advice"
    assert took < 5 and peak < 64e6


def test_an_endless_pickle_and_an_empty_one(tmp_path: Path) -> None:
    for pickled in (b"N" * 1000 + b"0" * 1001, b"a", b"s", b"u", b"t", b"\x85", b"h\x05", b"Q", b"R", b"b"):
        with pytest.raises(Refused, match=r"x\.pt"):
            read_torch(held(tmp_path / "x.pt", pickled))


def test_every_kind_of_value_that_checkpoints_hold(tmp_path: Path) -> None:
    base = torch.arange(24.0)
    value = {
        "model": OrderedDict(a=base.view(4, 6), b=base.view(4, 6).T, c=base[3:9:2], none=torch.empty(0, 3)),
        "numbers": [1, -1, 2**40, 0.5, float("inf"), True, None, b"raw", ("x", (1, 2))],
        "types": {d: torch.ones(3).to(d) for d in ()},
        "param": torch.nn.Parameter(torch.ones(2)),
        5: torch.Size([1, 2]),
        "dtype": torch.float16,
    }
    value["types"] = {
        str(d): torch.tensor([0, 1, 1]).to(d)
        for d in (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
                  torch.uint8, torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn)
    }  # fmt: skip
    for legacy in (False, True):
        kept = {k: v for k, v in value.items() if not (legacy and k == "types")}
        torch.save(kept, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
        read = read_torch(tmp_path / "x.pt")
        assert list(read) == list(kept) and read["numbers"] == value["numbers"] and read[5] == (1, 2)
        assert read["dtype"] is torch.float16
        for name, tensor in [*value["model"].items(), ("param", value["param"]), *kept.get("types", {}).items()]:
            found = read["model"].get(name, read.get(name, read.get("types", {}).get(name)))
            assert found.dtype == tensor.dtype and found.shape == tensor.shape, name
            assert torch.equal(found.view(-1).view(torch.uint8) if "float8" in name else found,
                               tensor.view(-1).view(torch.uint8) if "float8" in name else tensor)  # fmt: skip
    assert read["model"]["a"].data_ptr() == read["model"]["b"].data_ptr(), "shared storages stay shared"


def test_checksums_are_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.arange(1000.0)}, buffer)
    content = bytearray(buffer.getvalue())
    at = content.index(torch.arange(500.0, 510.0).numpy().tobytes())
    content[at + 2] ^= 1
    (tmp_path / "x.pt").write_bytes(content)
    torch.load(tmp_path / "x.pt", weights_only=True)  # torch takes it
    with pytest.raises(Refused, match=r"damaged.*CRC"):
        read_torch(tmp_path / "x.pt")
