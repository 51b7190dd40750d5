"""Every JSON file we read, each of its keys with every junk, and whole files that are none."""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from arena import Case
from junk import FILES, MISSING, MISTYPED, places, with_junk
from words import AGAIN, CPU, CYCLE, ENCODED, FAST, ONCE, ONE, RESUME, TWO

JOB = ["sample", "TEMPLATES/model", *CYCLE, "--out", "it"]


def json_cases(root: Path) -> Iterator[Case]:
    """Cases of all files, of the junk all kinds."""
    deep = ["deep list", "deep mapping", "5000 digits", "long word", "empty word", "up", "list of words", "infinite"]
    for folder, file, words, writes in USES:
        if not (root / folder / file).is_file():
            continue  # of a folder that takes long to make
        value, lined = _value(root / folder / file)
        for at in places(value):
            if len(at) > 1 and at[0] == "alpha_bar":
                continue
            rng = random.Random(f"{file}{at}")
            for kind in (MISSING, *MISTYPED, rng.choice(deep)):
                name = f"{folder}/{file} {'.'.join(map(str, at))} {kind} {words[0]}"
                yield Case(name, _with(root, folder, file, words, partial(_text, value, at, kind, lined)), writes)
        for kind, content in FILES.items():
            name = f"{folder}/{file} as {kind} {words[0]}"
            yield Case(name, _with(root, folder, file, words, partial(bytes, content)), writes)


USES: list[tuple[str, str, list[str], bool]] = [
    ("model", "ddim.json", ["sample", "it", *ONE], True),
    ("model", "ddim.json", ["info", "it"], False),
    ("run", "ddim.json", [*ONCE, "--init", "it"], True),
    ("model", "model_index.json", ["info", "it"], False),
    ("model", "unet/config.json", ["info", "it"], False),
    ("model", "scheduler/scheduler_config.json", ["sample", "it", *ONE], True),
    ("model", "tuned.json", ["sample", "it", *TWO, "--spacing", "tuned", "--solver", "dpm++2m"], True),
    ("run", "state/recipe.json", RESUME, True),
    ("run", "state/recipe.json", ["info", "it"], False),
    ("run", "log.jsonl", ["info", "it"], False),
    ("run", "log.jsonl", RESUME, True),
    ("run", "ddim.json", ["info", "it"], False),
    ("ae", "config.json", ["info", "it"], False),
    ("ae", "config.json", ENCODED, True),
    ("ae", "ddim.json", ["info", "it"], False),
    ("ae", "ddim.json", ENCODED, True),
    ("ae", "state/recipe.json", AGAIN, True),
    ("ae", "state/recipe.json", ["info", "it"], False),
    ("ae", "log.jsonl", AGAIN, True),
    ("latent", "vqvae/config.json", ["sample", "it", *ONE], True),
    ("latent", "model_index.json", ["sample", "it", *ONE], True),
    ("latent", "ddim.json", ["sample", "it", *ONE], True),
    ("latent", "state/recipe.json", RESUME, True),
    ("job", "recipe.json", [*JOB, "--precision", "auto", "--batch-size", "auto", *CPU], True),
    ("job", "manifest.json", ["sample", "--verify", "--out", "it"], False),
    ("job", "manifest.json", [*JOB, *FAST], True),
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


def _with(
    root: Path, folder: str, file: str, words: list[str], content: Callable[[], bytes]
) -> Callable[[Path], list[str]]:
    """Words on a copy of a folder in which one file holds something else."""

    def make(here: Path) -> list[str]:
        shutil.copytree(root / folder, here / "it")
        (here / "it" / file).write_bytes(content())
        return [w.replace("TEMPLATES", str(root)) for w in words]

    return make
