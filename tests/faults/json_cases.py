"""Every JSON file we read, each of its keys with every junk, and whole files that are none."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from arena import Case
from junk import FILES, MISSING, MISTYPED, with_junk

Words = Callable[[Path], list[str]]
FEW = ["--count", "1", "--steps", "1", "--precision", "fp32", "--device", "cpu", "--out", "made"]


def json_cases(root: Path) -> Iterator[Case]:
    """Cases of all files, of the junk all kinds."""
    deep = ["deep list", "deep mapping", "5000 digits", "long word", "empty word", "up", "list of words", "infinite"]
    for folder, file, words, writes in USES:
        if not (root / folder / file).is_file():
            continue  # of a folder that takes long to make
        value, lined = _value(root / folder / file)
        for at in _places(value):
            rng = random.Random(f"{file}{at}")
            for kind in (MISSING, *MISTYPED, rng.choice(deep)):
                name = f"{folder}/{file} {'.'.join(map(str, at))} {kind} {words[0]}"
                yield Case(name, _with(root, folder, file, words, partial(_text, value, at, kind, lined)), writes)
        for kind, content in FILES.items():
            name = f"{folder}/{file} as {kind} {words[0]}"
            yield Case(name, _with(root, folder, file, words, partial(bytes, content)), writes)


USES: list[tuple[str, str, list[str], bool]] = [
    ("model", "ddim.json", ["sample", "it", *FEW], True),
    ("model", "ddim.json", ["info", "it"], False),
    ("model", "model_index.json", ["info", "it"], False),
    ("model", "unet/config.json", ["info", "it"], False),
    ("model", "scheduler/scheduler_config.json", ["sample", "it", *FEW], True),
    (
        "model",
        "tuned.json",
        [
            "sample",
            "it",
            "--count",
            "1",
            "--steps",
            "2",
            "--spacing",
            "tuned",
            "--solver",
            "dpm++2m",
            "--precision",
            "fp32",
            "--device",
            "cpu",
            "--out",
            "made",
        ],
        True,
    ),
    ("run", "state/recipe.json", ["train", "--resume", "it", "--max-steps", "5", "--device", "cpu"], True),
    ("run", "state/recipe.json", ["info", "it"], False),
    ("run", "log.jsonl", ["info", "it"], False),
    ("run", "log.jsonl", ["train", "--resume", "it", "--max-steps", "5", "--device", "cpu"], True),
    ("run", "ddim.json", ["info", "it"], False),
    (
        "job",
        "recipe.json",
        [
            "sample",
            "TEMPLATES/model",
            "--count",
            "3",
            "--steps",
            "2",
            "--label",
            "cycle",
            "--out",
            "it",
            "--precision",
            "auto",
            "--batch-size",
            "auto",
            "--device",
            "cpu",
        ],
        True,
    ),
    ("job", "manifest.json", ["sample", "--verify", "--out", "it"], False),
    (
        "job",
        "manifest.json",
        [
            "sample",
            "TEMPLATES/model",
            "--count",
            "3",
            "--steps",
            "2",
            "--label",
            "cycle",
            "--out",
            "it",
            "--precision",
            "fp32",
            "--device",
            "cpu",
        ],
        True,
    ),
    ("onnx", "ddim.json", ["sample", "it", "--count", "1", "--steps", "1", "--out", "made"], True),
]


def _value(path: Path) -> tuple[object, bool]:
    """What the file holds; of lines the last one, as an object."""
    text = path.read_text()
    if path.suffix == ".jsonl":
        return json.loads(text.splitlines()[-1]), True
    return json.loads(text), False


def _text(value: object, at: tuple, kind: str, lined: bool) -> bytes:
    text = with_junk(value, at, kind)
    return (f"{json.dumps(value)}\n{text}\n" if lined else text).encode("utf-8", "surrogatepass")


def _places(value: object) -> Iterator[tuple]:
    from junk import places

    kept = (at for at in places(value) if not (len(at) > 1 and at[0] == "alpha_bar"))
    yield from kept


def _with(
    root: Path, folder: str, file: str, words: list[str], content: Callable[[], bytes]
) -> Callable[[Path], list[str]]:
    """Words on a copy of a folder in which one file holds something else."""

    def make(here: Path) -> list[str]:
        shutil.copytree(root / folder, here / "it")
        (here / "it" / file).write_bytes(content())
        return [w.replace("TEMPLATES", str(root)) for w in words]

    return make
