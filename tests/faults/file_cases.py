"""Pictures, tables, weights and programs: files nobody vouches for, damaged or hostile."""

import io
import json
import os
import pickle
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arena import CANARY, Case
from junk import ESC, damaged, put
from PIL import Image
from safetensors.torch import load_file, save
from seeds_of_cases import picture
from words import AGAIN, DIGITS, ENCODED, FAST, ONE, RESUME, TWO

TRAIN = ["train", "it", *DIGITS, "--out", "made", "--max-steps", "1", "--batch-size", "2", *FAST]
EDIT = ["--out", "made", "--steps", "2", "--seeds", "0", *FAST]
ENCODE = ["encode", "TEMPLATES/model", "it", "--steps", "2", "--out", "z.safetensors", *FAST]


# -- pictures ------------------------------------------------------------------------------------------------


def picture_cases(root: Path) -> Iterator[Case]:
    """A folder of good pictures with one that is not."""
    for name, make in {**BAD_PICTURES, **_damaged_pictures()}.items():
        for words in (TRAIN, [*ENCODE[:2], "it/a", *ENCODE[3:]], [*TRAIN, "--skip-unreadable"]):
            skips = " skip" * ("--skip-unreadable" in words)
            yield Case(f"picture {name} {words[0]}{skips}", _beside(root, make, words), True)
        edit = ["edit", "TEMPLATES/model", "it/a/bad.png", *EDIT]
        yield Case(f"picture {name} edit", _beside(root, make, edit))
        mask = ["edit", "TEMPLATES/model", "it/a/good0.png", "--mask", "it/a/bad.png", "--resample", "1", *EDIT]
        yield Case(f"picture {name} as mask", _beside(root, make, mask))


def _beside(root: Path, bad: Callable[[Path], None], words: list[str]) -> Callable[[Path], list[str]]:
    def make(here: Path) -> list[str]:
        folder = here / "it" / "a"
        folder.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(picture(i)).save(folder / f"good{i}.png")
        bad(folder / "bad.png")
        return [w.replace("TEMPLATES", str(root)) for w in words]

    return make


def png(
    width: int, height: int, *, depth: int = 8, kind: int = 0, data: bytes | None = None, more: bytes = b""
) -> bytes:
    """A PNG that claims this size, whatever it holds."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    body = zlib.compress(data if data is not None else bytes((8 + 1) * 8))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def _text_bomb(path: Path) -> None:
    body = b"note\0\0" + zlib.compress(bytes(80 * 2**20))
    put(
        path,
        png(8, 8, more=struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))),
    )


def _saved(image: Image.Image, kind: str, **more: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        data = io.BytesIO()
        image.save(data, format=kind, **more)
        put(path, data.getvalue())

    return make


def _named(name: str, content: bytes | None = None) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        put(path.with_name(name), content if content is not None else png(8, 8))
        put(path, png(8, 8))

    return make


GHOST = b"%%!PS-Adobe-3.0 EPSF-3.0\n%%%%BoundingBox: 0 0 8 8\n(%s) (w) file closefile\nshowpage\n" % CANARY.encode()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
BAD_PICTURES: dict[str, Callable[[Path], None]] = {
    "fifo": lambda p: os.mkfifo(p),
    "folder": lambda p: p.mkdir(),
    "broken link": lambda p: p.symlink_to("nowhere"),
    "link to itself": lambda p: p.symlink_to(p),
    "link to zero": lambda p: p.symlink_to("/dev/zero"),
    "empty": lambda p: put(p, b""),
    "text": lambda p: put(p, "not a picture\n"),
    "escape text": lambda p: put(p, ESC),
    "postscript": lambda p: put(p, GHOST),
    "svg": lambda p: put(p, SVG),
    "pickle": lambda p: put(p, pickle.dumps([1, 2])),
    "60000 a side": lambda p: put(p, png(60_000, 60_000)),
    "2 billion wide": lambda p: put(p, png(2**31 - 1, 1)),
    "0 wide": lambda p: put(p, png(0, 8)),
    "1 wide 20000 high": lambda p: put(p, png(1, 20_000, data=bytes(40_000))),
    "no data": lambda p: put(p, png(8, 8, data=b"")),
    "text bomb": _text_bomb,
    "16 bit": _saved(Image.fromarray(np.full((8, 8), 60_000, np.uint16)), "PNG"),
    "floats": _saved(Image.fromarray(np.full((8, 8), 0.5, np.float32)), "TIFF"),
    "whole numbers": _saved(Image.fromarray(np.full((8, 8), -5, np.int32)), "TIFF"),
    "NaN": _saved(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"),
    "cmyk": _saved(Image.new("CMYK", (8, 8)), "JPEG"),
    "lab": _saved(Image.new("LAB", (8, 8)), "TIFF"),
    "one bit": _saved(Image.new("1", (8, 8)), "PNG"),
    "palette": _saved(Image.new("P", (8, 8)), "GIF"),
    "transparent": _saved(Image.new("RGBA", (8, 8)), "WEBP"),
    "icon": _saved(Image.new("RGB", (16, 16)), "ICO"),
    "other size": _saved(Image.new("L", (31, 9)), "PNG"),
    "one pixel": _saved(Image.new("L", (1, 1)), "BMP"),
    "name with escape": _named(f"{ESC}.png"),
    "name with lines": _named("a\nddim: written\n.png"),
    "name of 250": _named("n" * 246 + ".png"),
    "name that is no text": lambda p: _bytes_name(p),
    "bad with escape": _named(f"{ESC}bad.png", b"nothing"),
    "name with a turn": _named("\u202egnp.png"),
    "class with escape": lambda p: put(p.parent.parent / ESC / "x.png", png(8, 8)),
}


def _bytes_name(path: Path) -> None:
    with open(os.fsencode(path.parent) + b"/\xff\xfe.png", "wb") as file:  # noqa: PTH123  Path takes no bytes
        file.write(png(8, 8))
    put(path, png(8, 8))


def _damaged_pictures() -> dict[str, Callable[[Path], None]]:
    found: dict[str, Callable[[Path], None]] = {}
    for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        data = io.BytesIO()
        Image.fromarray(picture(3, 16)).save(data, format=kind)
        for i in range(10):
            content = damaged(data.getvalue(), random.Random(f"{kind}{i}"))
            found[f"damaged {kind} {i}"] = lambda p, content=content: put(p, content)
    return found


# -- tables --------------------------------------------------------------------------------------------------


def table_cases(root: Path) -> Iterator[Case]:
    """Parquet files."""
    words = [w.replace("it", "it.parquet") if w == "it" else w for w in TRAIN]
    info = ["info", "TEMPLATES/model", "--check", "--data", "it.parquet"]
    for name, make in BAD_TABLES.items():
        for argv in (words, info):
            yield Case(f"table {name} {argv[0]}", _table(root, make, argv), argv is words)
    whole = (root / "table.parquet").read_bytes()
    for i in range(40):
        content = damaged(whole, random.Random(f"table {i}"))
        yield Case(f"table damaged {i}", _table(root, lambda p, c=content: put(p, c), words), True)


def _table(root: Path, bad: Callable[[Path], None], words: list[str]) -> Callable[[Path], list[str]]:
    def make(here: Path) -> list[str]:
        bad(here / "it.parquet")
        return [w.replace("TEMPLATES", str(root)) for w in words]

    return make


def _columns(path: Path, names: list[str], columns: list[Any], metadata: dict[str, str] | None = None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    made = pa.Table.from_arrays([pa.array(c) for c in columns], names=names)
    pq.write_table(made.replace_schema_metadata(metadata), path)


def _cells(n: int = 24) -> list[dict[str, Any]]:
    return [{"bytes": png(8, 8, data=bytes([0, *([i] * 8)] * 8)), "path": None} for i in range(n)]


def _about(value: Any) -> dict[str, str]:
    return {"huggingface": value if isinstance(value, str) else json.dumps(value)}


def _names(names: Any) -> dict[str, str]:
    return _about({"info": {"features": {"label": {"names": names}}}})


DEEP = "[" * 100_000 + "]" * 100_000
BAD_TABLES: dict[str, Callable[[Path], None]] = {
    "image twice": lambda p: _columns(p, ["image", "image", "label"], [_cells(), _cells(), [0, 1] * 12]),
    "label twice": lambda p: _columns(p, ["image", "label", "label"], [_cells(), [0, 1] * 12, [0, 1] * 12]),
    "deep metadata": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 1] * 12], _about(DEEP)),
    "metadata of digits": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 1] * 12], _about("1" * 5000)),
    "metadata a list": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 1] * 12], _about([1])),
    "names a number": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 1] * 12], _names(5)),
    "names with escape": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 1] * 12], _names([ESC, "b"])),
    "names long": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 1] * 12], _names(["n" * 9999, "b"])),
    "names alike": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 1] * 12], _names(["a", "a"])),
    "names deep": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 1] * 12], _names([[[1]], {}])),
    "a million names": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 1] * 12], _names(["n"] * 10**6)),
    "a million classes": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 10**6 - 1] * 12]),
    "huge label": lambda p: _columns(p, ["image", "label"], [_cells(), [0, 2**62] * 12]),
    "label null": lambda p: _columns(p, ["image", "label"], [_cells(), [None] * 24]),
    "label words": lambda p: _columns(p, ["image", "label"], [_cells(), [ESC] * 24]),
    "label flags": lambda p: _columns(p, ["image", "label"], [_cells(), [True, False] * 12]),
    "label lists": lambda p: _columns(p, ["image", "label"], [_cells(), [[1]] * 24]),
    "label floats": lambda p: _columns(p, ["image", "label"], [_cells(), [0.5] * 24]),
    "image null": lambda p: _columns(p, ["image"], [[None] * 24]),
    "image words": lambda p: _columns(p, ["image"], [["x"] * 24]),
    "image numbers": lambda p: _columns(p, ["image"], [[1] * 24]),
    "image lists": lambda p: _columns(p, ["image"], [[[1, 2]] * 24]),
    "image other struct": lambda p: _columns(p, ["image"], [[{"path": "/etc/passwd"}] * 24]),
    "image path only": lambda p: _columns(p, ["image"], [[{"bytes": None, "path": "/etc/passwd"}] * 24]),
    "image bytes in words": lambda p: _columns(p, ["image"], [[{"bytes": "word"}] * 24]),
    "no columns": lambda p: _columns(p, [], []),
    "no rows": lambda p: _columns(p, ["image"], [[]]),
    "column with escape": lambda p: _columns(p, [ESC, "x" * 9999], [[1], [1]]),
    "columns, 5000": lambda p: _columns(p, [f"c{i}" for i in range(5000)], [[1]] * 5000),
    "empty file": lambda p: put(p, b""),
    "text": lambda p: put(p, "PAR1 nothing PAR1"),
    "folder": lambda p: p.mkdir(),
    "fifo": lambda p: os.mkfifo(p),
}


# -- weights -------------------------------------------------------------------------------------------------


class Runs:
    """What a pickle does that runs code."""

    def __init__(self, what: Any, *args: Any) -> None:
        self.what, self.args = what, args

    def __reduce__(self) -> Any:
        return self.what, self.args


def pickle_cases(root: Path) -> Iterator[Case]:
    """Checkpoint files."""
    state = {k: v.clone() for k, v in load_file(_weights(root / "model")).items()}
    bad: dict[str, Any] = {
        "list": [1, 2], "tuple": (), "number": 5, "word": ESC, "none": None, "tensor": torch.zeros(3), "empty": {},
        "list of tensors": [torch.zeros(2)] * 5, "deep list": _deep(150), "mapping of lists": {"a": [1]},
        "number keys": {1: torch.zeros(2)}, "tuple keys": {(1, 2): torch.zeros(2)}, "escape key": {ESC: torch.zeros(2)},
        "ema only": {"ema": {}}, "state in state": {"state_dict": {"state_dict": state}},
        "names long": {"n" * 9999: torch.zeros(1)}, "a million keys": {f"k{i}": 1 for i in range(10**5)},
        "code": {"a": Runs(os.system, f"touch {CANARY}")}, "eval": Runs(eval, f"open('{CANARY}', 'w')"),
        "open": Runs(open, CANARY, "w"), "bytearray": Runs(bytearray, 5 << 30), "module": torch.nn.Linear(2, 2),
        "complex": {"a": torch.zeros(3, dtype=torch.complex64)}, "bool": {k: v > 0 for k, v in state.items()},
        "int8": {k: v.to(torch.int8) for k, v in state.items()}, "fp64": {k: v.double() for k, v in state.items()},
        "no numbers": {k: v[:0] for k, v in state.items() if v.ndim}, "scalars": {k: torch.tensor(1.0) for k in state},
        "meta": {k: v.to("meta") for k, v in state.items()}, "sparse": {"a": torch.eye(3).to_sparse()},
        "plain": state, "NaN": {k: v * float("nan") for k, v in state.items()},
        "lists": {k: v.tolist() for k, v in list(state.items())[:3]},
    }  # fmt: skip
    for name, value in bad.items():
        for style in ("zip", "old"):
            data = io.BytesIO()
            torch.save(value, data, _use_new_zipfile_serialization=style == "zip")
            content = data.getvalue()
            for words in WEIGHT_WORDS:
                yield Case(f"pickle {name} {style} {words[0]}", _file(root, "it.pt", content, words))
    for name, content in BAD_PICKLES.items():
        for words in WEIGHT_WORDS:
            yield Case(f"pickle {name} {words[0]}", _file(root, "it.pt", content, words))
    golden = Path(__file__).parent.parent / "data" / "golden"
    for path in sorted([*golden.rglob("*.pt"), *golden.rglob("*.pth"), *golden.rglob("*.ckpt")]):
        whole = path.read_bytes()
        for i in range(20):
            content = damaged(whole, random.Random(f"{path.name} {i}"))
            yield Case(f"pickle damaged {path.name} {i}", _file(root, "it.pt", content, ["info", "it.pt"]))
    yield from _in_the_folder(root, bad)
    yield from _of_a_run(root, bad, "run", RESUME)
    yield from _of_a_run(root, bad, "ae", AGAIN)


WEIGHT_WORDS = (
    ["info", "it.pt"],
    ["import", "it.pt", "made"],
    ["info", "it.pt", "--family", "openai"],
    ["info", "it.pt", "--family", "ermongroup"],
    ["info", "it.pt", "--family", "lucidrains"],
)
BAD_PICKLES: dict[str, bytes] = {
    "code plain": pickle.dumps({"a": Runs(os.system, f"touch {CANARY}")}), "plain list": pickle.dumps([1]),
    "nested tuple keys": b"\x80\x02}(" + b"(" * 1 + b"K\x01t" + b"2\x86" * 200 + b"K\x01u.",
    "deep": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".", "memo": b"\x80\x02]r\xff\xff\xff\x7f.",
    "frame": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.", "long": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "empty": b"", "zip of nothing": b"PK\x05\x06" + bytes(18), "PK": b"PK\x03\x04" + bytes(100), "text": b"hello\n",
    "lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "escape": ESC.encode(), "html": b"<html>",
}  # fmt: skip


def _weights(folder: Path) -> Path:
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


def _deep(n: int) -> list:
    value: list = []
    for _ in range(n):
        value = [value]
    return value


def _file(root: Path, name: str, content: bytes, words: list[str]) -> Callable[[Path], list[str]]:
    def make(here: Path) -> list[str]:
        put(here / name, content)
        return [w.replace("TEMPLATES", str(root)) for w in words]

    return make


def _in_the_folder(root: Path, bad: dict[str, Any]) -> Iterator[Case]:
    """A diffusers folder with such a .bin in place of its weights."""
    for name, value in bad.items():

        def make(here: Path, value: Any = value) -> list[str]:
            shutil.copytree(root / "model", here / "it")
            _weights(here / "it").unlink()
            torch.save(value, _weights(here / "it").with_suffix(".bin"))
            return ["sample", "it", *ONE]

        yield Case(f"folder with {name}", make, True)


def _of_a_run(root: Path, bad: dict[str, Any], folder: str, words: list[str]) -> Iterator[Case]:
    """A run whose newest checkpoint is no checkpoint."""
    newest = sorted((root / folder / "state").glob("step-*.pt"))[-1]
    content = torch.load(newest, weights_only=True)
    wrong = {"a list": [1], "a word": "x", "none": None, "NaN": float("nan"), "a mapping": {"a": 1}}
    odd = {f"{key} {name}": {**content, key: value} for key in content for name, value in wrong.items()}
    odd |= {f"without {key}": {k: v for k, v in content.items() if k != key} for key in content}
    for name, value in {**{k: v for k, v in bad.items() if k not in ("a million keys",)}, **odd}.items():

        def make(here: Path, value: Any = value) -> list[str]:
            shutil.copytree(root / folder, here / "it")
            torch.save(value, here / "it" / "state" / newest.name)
            return words

        yield Case(f"{folder} with checkpoint {name}", make, True)


def tensor_cases(root: Path) -> Iterator[Case]:
    """safetensors files: of a model folder, an autoencoder's, a latent model's, and alone."""
    uses = {
        "model": (_weights, (["info", "it"], ["sample", "it", *TWO])),
        "ae": (lambda folder: folder / _weights(folder).name, (["info", "it"], ENCODED)),
        "latent": (lambda folder: folder / "vqvae" / _weights(folder).name, (["sample", "it", *TWO],)),
    }
    for folder, (weights, uses_of) in uses.items():
        for name, content in _bad_tensors(weights(root / folder)).items():
            for words in uses_of:

                def make(
                    here: Path, content: bytes = content, words: list[str] = words, folder: str = folder,
                    weights: Callable[[Path], Path] = weights,
                ) -> list[str]:  # fmt: skip
                    shutil.copytree(root / folder, here / "it")
                    put(weights(here / "it"), content)
                    return [w.replace("TEMPLATES", str(root)) for w in words]

                yield Case(f"weights of {folder} {name} {words[0]}", make, True)
            if folder == "model":
                yield Case(f"safetensors {name}", _file(root, "it.safetensors", content, ["info", "it.safetensors"]))


def _bad_tensors(path: Path) -> dict[str, bytes]:
    whole, state = path.read_bytes(), load_file(path)
    made: dict[str, bytes] = {f"damaged {i}": damaged(whole, random.Random(f"s{i}")) for i in range(60)}
    length = struct.unpack("<Q", whole[:8])[0]
    head, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    first = next(k for k in head if k != "__metadata__")
    changes: dict[str, dict[str, Any]] = {
        "dtype": {"dtype": "X"}, "bool": {"dtype": "BOOL"}, "F8": {"dtype": "F8_E4M3"}, "shape": {"shape": [-1]},
        "shape word": {"shape": "x"}, "huge shape": {"shape": [2**40, 2**40]}, "offsets": {"data_offsets": [0, 2**62]},
        "back": {"data_offsets": [8, 0]}, "no offsets": {"data_offsets": None},
    }  # fmt: skip
    for name, change in changes.items():
        made[f"header {name}"] = _tensors({**head, first: {**head[first], **change}}, body)
    made["header list"], made["header number"] = _tensors([1], body), _tensors(7, body)
    made["header escape"] = _tensors({**head, "__metadata__": {ESC: ESC}}, body)
    made["metadata numbers"] = _tensors({**head, "__metadata__": {"a": 1}}, body)
    made["huge header"] = struct.pack("<Q", 2**62) + whole[8:]
    made["deep header"] = _raw(("[" * 100_000 + "]" * 100_000).encode(), b"")
    made |= {"empty": b"", "nothing": _tensors({}, b"")}
    for dtype in (torch.bool, torch.int8, torch.int64, torch.float16, torch.float64, torch.bfloat16):
        made[f"all {dtype}"] = _saved_tensors({k: v.to(dtype) for k, v in state.items()})
    made["no rows"] = _saved_tensors({k: v[:0].clone() for k, v in state.items()})
    made["NaN"] = _saved_tensors({k: v * float("nan") for k, v in state.items()})
    made["large"] = _saved_tensors({k: v * 1e30 for k, v in state.items()})
    made["other names"] = _saved_tensors({f"{ESC}{k}": v for k, v in state.items()})
    made["long names"] = _saved_tensors({f"{'n' * 9999}{i}": v for i, v in enumerate(state.values())})
    return made


def _raw(head: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(head)) + head + body


def _tensors(head: Any, body: bytes) -> bytes:
    return _raw(json.dumps(head).encode(), body)


def _saved_tensors(state: dict[str, torch.Tensor]) -> bytes:
    return save({k: v.contiguous() for k, v in state.items()})
