"""Files of our own that are no JSON: latents, measured cells, exported networks, a job's pictures."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from arena import Case
from junk import JUNK, MISSING, MISTYPED, damaged, places, put, with_junk
from safetensors import safe_open
from safetensors.torch import load_file, save
from words import FAST, REPORT

DECODE = ["decode", "TEMPLATES/model", "it.safetensors", "--out", "made", *FAST]


def changed_tensors(state: dict[str, torch.Tensor], name: str) -> dict[str, dict[str, torch.Tensor]]:
    """The file with one of its tensors of another type, shape, length or with numbers that are none."""
    t = state[name]
    others = {
        "NaN": t.float() * float("nan"), "infinite": t.float() + float("inf"), "huge": t.double() * 1e300,
        "whole": t.to(torch.int64), "bytes": t.to(torch.uint8), "flags": t > 0, "complex": t.to(torch.complex64),
        "half": t.to(torch.float16), "double": t.double(), "longer": torch.cat([t, t]), "shorter": t[:1],
        "none": t[:0], "one number": t.flatten()[0], "flat": t.flatten(), "deeper": t[None],
        "negative": -t.double() - 5,
    }  # fmt: skip
    found = {kind: {**state, name: value.clone().contiguous()} for kind, value in others.items()}
    return found | {"missing": {k: v for k, v in state.items() if k != name}}


def latent_cases(root: Path) -> Iterator[Case]:
    """Latents: each tensor, each field of the recipe, the whole file."""
    path = root / "z.safetensors"
    beside = partial(_beside, "it.safetensors")
    yield from _tensor_file(root, path, "recipe", "latents", beside, DECODE)
    state, words = load_file(path), _metadata(path)
    recipe = json.loads(words["recipe"])
    odd: dict[str, Any] = {
        "rising": [1, 300, 600], "repeating": [600, 600, 1, 0], "beyond": [2000, 5, 0], "half": [600.5, 1, 0],
        "one": [5], "flags": [True, False], "no end": [600, 5], "words": ["a"],
        "tall": list(range(100_000, -1, -1)),
    }  # fmt: skip
    for kind, tau in odd.items():
        text = json.dumps({**recipe, "tau": tau})
        yield Case(f"latents tau {kind}", _put(root, save(state, {**words, "recipe": text})), False)
    coupled = {**state, "coupled": torch.ones(3, dtype=torch.bool)}
    shapes = {"no": None, "short": (1, 2, 1, 8, 8), "flat": (3, 2), "right": (3, 2, 1, 8, 8), "other": (3, 2, 1, 4, 4)}
    for kind, shape in shapes.items():
        whole = coupled if shape is None else {**coupled, "states": torch.zeros(shape, dtype=torch.float64)}
        yield Case(f"latents coupled, {kind} states", _put(root, save(whole, words)), False)


def cell_cases(root: Path) -> Iterator[Case]:
    """Measured sets of a report."""
    argv = ["evaluate", "TEMPLATES/model", "TEMPLATES/pictures", *REPORT, "--out", "it", *FAST]
    for path in sorted((root / "report" / "cells").glob("*.safetensors"))[:2]:

        def place(here: Path, content: bytes, path: Path = path) -> None:
            shutil.copytree(root / "report", here / "it")
            put(here / "it" / "cells" / path.name, content)

        yield from _tensor_file(root, path, "about", f"cell {path.name[:4]}", place, argv)
        part = path.with_suffix(".part").name

        def half(here: Path, content: bytes, path: Path = path, part: str = part) -> None:
            shutil.copytree(root / "report", here / "it")
            (here / "it" / "cells" / path.name).unlink()
            put(here / "it" / "cells" / part, content)

        yield from _tensor_file(root, path, "about", f"half cell {path.name[:4]}", half, argv)


def onnx_cases(root: Path) -> Iterator[Case]:
    """Exported networks: damaged, of other shapes, of other programs."""
    argv = ["sample", "it", "--count", "1", "--steps", "2", "--label", "1", "--out", "made"]
    whole = (root / "onnx" / "network.onnx").read_bytes()
    made: dict[str, bytes] = {f"damaged {i}": damaged(whole, random.Random(f"onnx {i}")) for i in range(40)}
    made |= {name: _program(**how) for name, how in PROGRAMS.items()} | {"empty": b"", "text": b"hello"}
    for name, content in made.items():
        for honest in (True, False):

            def make(here: Path, content: bytes = content, honest: bool = honest) -> list[str]:
                import hashlib

                shutil.copytree(root / "onnx", here / "it")
                put(here / "it" / "network.onnx", content)
                if honest:  # whoever changes the network can change its hash
                    about = here / "it" / "ddim.json"
                    told = json.loads(about.read_text()) | {"sha256": hashlib.sha256(content).hexdigest()}
                    about.write_text(json.dumps(told))
                return argv

            yield Case(f"onnx {name} {'with its hash' * honest}", make, True)


PROGRAMS: dict[str, dict[str, Any]] = {
    "other output": {"out": [1, 5, 3]}, "no rows": {"out": [0, 1, 8, 8]}, "fixed batch": {"x": [4, 1, 8, 8]},
    "other size": {"x": ["b", 1, 9, 9]}, "three channels": {"x": ["b", 3, 8, 8]}, "flat": {"x": ["b", 64]},
    "whole x": {"kind": 7}, "double x": {"kind": 11}, "words": {"kind": 8}, "other names": {"names": ("a", "b", "c")},
    "two inputs": {"names": ("x", "t")}, "four inputs": {"names": ("x", "t", "label", "more")},
    "file of weights": {"external": True}, "no output": {"outputs": 0}, "two outputs": {"outputs": 2},
}  # fmt: skip


def _program(
    x: Any = ("b", 1, 8, 8),
    out: Any = None,
    kind: int = 1,
    names: tuple[str, ...] = ("x", "t", "label"),
    external: bool = False,
    outputs: int = 1,
) -> bytes:
    from onnx import TensorProto, helper

    inputs = [helper.make_tensor_value_info(names[0], kind, list(x))]
    inputs += [helper.make_tensor_value_info(n, TensorProto.INT64, ["b"]) for n in names[1:]]
    if out is None:
        nodes, tensors = [helper.make_node("Identity", [names[0]], [f"out{i}"]) for i in range(max(outputs, 1))], []
    else:
        count = 1
        for n in out:
            count *= n
        weights = helper.make_tensor("w", 1, list(out), [0.0] * count)
        if external:
            weights.data_location = TensorProto.EXTERNAL
        nodes, tensors = [helper.make_node("Identity", ["w"], ["out0"])], [weights]
    if external and out is None:
        weights = TensorProto(name="w", data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
        entry = weights.external_data.add()
        entry.key, entry.value = "location", "/etc/passwd"
        nodes, tensors = [helper.make_node("Identity", ["w"], ["out0"])], [weights]
    told = [helper.make_tensor_value_info(f"out{i}", kind if out is None else 1, None) for i in range(outputs)]
    graph = helper.make_graph(nodes, "g", inputs, told, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _beside(name: str, here: Path, content: bytes) -> None:
    put(here / name, content)


def _put(root: Path, content: bytes) -> Callable[[Path], list[str]]:
    def make(here: Path) -> list[str]:
        put(here / "it.safetensors", content)
        return [w.replace("TEMPLATES", str(root)) for w in DECODE]

    return make


def _tensor_file(
    root: Path, path: Path, key: str, what: str, place: Callable[[Path, bytes], None], argv: list[str]
) -> Iterator[Case]:
    """A safetensors file with JSON in its metadata: bad tensors, bad fields, damage."""
    state, words = load_file(path), _metadata(path)
    made: dict[str, bytes] = {}
    for name in state:
        for kind, tensors in changed_tensors(state, name).items():
            made[f"{name} {kind}"] = save(tensors, words)
    told = json.loads(words[key])
    for at in places(told, depth=2):
        for junk in (MISSING, *MISTYPED, "deep list", "5000 digits"):
            made[f"{'.'.join(map(str, at))} {junk}"] = save(state, {**words, key: with_junk(told, at, junk)})
    for junk in ("no json", "[]", "null", "{}", str(JUNK["deep list"])):
        made[f"{key} as {junk[:9]}"] = save(state, {**words, key: junk})
    made |= {f"without {key}": save(state, {k: v for k, v in words.items() if k != key}), "without words": save(state)}
    made |= {f"damaged {i}": damaged(path.read_bytes(), random.Random(f"{what}{i}")) for i in range(30)}
    for name, content in made.items():

        def make(here: Path, content: bytes = content) -> list[str]:
            place(here, content)
            return [w.replace("TEMPLATES", str(root)) for w in argv]

        yield Case(f"{what} {name}", make, argv[0] != "decode")
