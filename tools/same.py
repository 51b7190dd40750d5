"""Proof that nothing a user sees has changed: run a fixed list of commands and calls, and compare what they made.

    python tools/same.py record OUT.json        run everything, write {name: sha256} (and a short text of each)
    python tools/same.py check OUT.json         run everything again, print every name that differs; exit code 1 if any
    python tools/same.py make-old FOLDER        make artefacts (half a training run, half a job, latents, ...) to keep
    python tools/same.py old FOLDER             resume, load and decode those with the code of now; exit code 1 as above

    --only sample,train     some groups only (`check` then compares these only); see GROUPS, and OLD for `old`
    --cold                  every command in a Python of its own, as a user starts it: the same, only slower
    --keep                  leave the working folder, and say where it is

The code under test is the `ddim` that Python finds (PYTHONPATH is inherited). Only what survives a refactoring is used:
the command line and the public Python API. All is fp32, one thread, CPU. What is compared are results: pixels, recipes,
tensors, numbers, the text on stdout; not wall-clock times, versions, nor the bytes of PNG files. Of a user's mistakes
("mistake:...") the exit code counts, and that nothing is left behind; the words lie beside it. A command starts in a
fork of a process that has imported third-party packages, but nothing of ddim: that saves what importing them takes.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import difflib
import hashlib
import importlib
import importlib.util
import io
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageSequence
from safetensors import safe_open

REPO = Path(__file__).resolve().parent.parent
DATA = REPO / "tests" / "data"
ENVIRON = {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0",
    "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "COLUMNS": "100", "TERM": "dumb", "MPLBACKEND": "Agg",
}  # fmt: skip
UNSET = ("DDIM_TRACEBACK", "DDIM_CACHE", "RANK", "WORLD_SIZE", "LOCAL_RANK")
PRELOADED = (
    "tyro", "yaml", "tqdm", "diffusers.models.unets.unet_2d", "diffusers.pipelines.ddim.pipeline_ddim", "accelerate",
    "torch.utils.tensorboard", "torch.utils.flop_counter", "matplotlib.pyplot", "pyarrow.parquet", "sklearn.datasets",
    "onnxruntime", "torchmetrics", "huggingface_hub", "PIL.PngImagePlugin", "PIL.WebPImagePlugin",
)  # fmt: skip
VARY = frozenset({
    "version", "ddim_version", "_diffusers_version", "ddim", "torch", "machine", "command", "seconds",
    "seconds_per_image", "images_per_second",
})  # fmt: skip
GETS_PRECISION = ("interpolate", "consistency", "edit", "demo")  # that have no --precision now and may have it later
UNSAID = (*GETS_PRECISION, "decode")  # whose recipes say nothing of precision now
PATIENCE = 300  # seconds a command may take
SHOWN = 6000  # characters of text kept beside a hash
Hashed = dict[str, tuple[str, str]]
"""name -> (sha256, text that shows what was hashed)."""
Item = tuple[str, Callable[[], Hashed]]


# -- hashing ---------------------------------------------------------------------------------------------------------


def hashed(values: Mapping[str, Any]) -> Hashed:
    """Each value's hash and text."""
    return {name: (digest(value), shown(value)) for name, value in values.items()}


def digest(value: Any) -> str:
    found = hashlib.sha256()
    for piece in pieces(value):
        found.update(piece)
    return found.hexdigest()


def pieces(value: Any) -> Iterator[bytes]:
    """Any nest of mappings, sequences, arrays, tensors and plain values as bytes, the kinds told apart."""
    if isinstance(value, Mapping):
        yield b"{"
        for key in sorted(value, key=str):
            yield f"{key!r}:".encode()
            yield from pieces(value[key])
        yield b"}"
    elif isinstance(value, list | tuple):
        yield b"["
        for inner in value:
            yield from pieces(inner)
        yield b"]"
    elif isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        yield f"{plain.dtype}{tuple(plain.shape)}".removeprefix("torch.").encode()
        yield plain.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    else:
        yield f"{type(value).__name__} {value!r};".encode()


def shown(value: Any) -> str:
    """The same as text for people, numbers of arrays summed up."""
    text = value if isinstance(value, str) else json.dumps(summary(value), indent=0, sort_keys=True, default=str)
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."


def summary(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): summary(v) for k, v in value.items()}
    if isinstance(value, list | tuple) and len(value) > 64 and all(isinstance(v, int | float) for v in value):
        return f"{len(value)} numbers {value[0]} .. {value[-1]}, {digest(value)[:8]}"
    if isinstance(value, list | tuple):
        return [summary(v) for v in value]
    if isinstance(value, np.ndarray | torch.Tensor):
        return sketch(torch.as_tensor(value))
    return value


def sketch(x: torch.Tensor) -> str:
    """Enough of a tensor to see whether a difference is rounding: moments to 9 digits."""
    name = f"{x.dtype}{list(x.shape)}".removeprefix("torch.")
    if not x.numel():
        return name
    flat = x.detach().double().flatten()
    numbers = " ".join(f"{float(v):.9g}" for v in (flat.mean(), flat.square().mean().sqrt(), flat.abs().max(), flat[0]))
    return f"{name} mean, rms, absmax, first: {numbers}; {digest(x)[:8]}"


# -- what a command left behind --------------------------------------------------------------------------------------


def contents(folder: Path, drop: frozenset[str] = VARY) -> dict[str, Any]:
    """Every file in a folder in comparable form: pixels, recipes and tensors each as one value, texts by name."""
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    found: dict[str, Any] = {"files": [re.sub(r"events\.out\..*", "events", n) for n in names]}
    for name in names:
        path = folder / name
        if path.suffix in (".png", ".webp", ".gif"):
            found.setdefault("pixels", {})[name] = pixels(path)
            if recipe := picture_recipe(path, drop):
                found.setdefault("recipes", {})[name] = recipe
        elif path.suffix in (".safetensors", ".pt", ".npz", ".bin"):
            found.setdefault("tensors", {})[name] = tensors(path)
        elif path.suffix in (".json", ".jsonl", ".csv"):
            found[name] = written(path, drop)
        elif path.suffix == ".html":
            found[name] = page(path.read_text(), drop)
    return found


def page(text: str, drop: frozenset[str]) -> list[Any]:
    """The words of an evaluation's page, table by table, without its pictures and seconds."""
    rows = [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in re.findall(r"<tr.*?</tr>", text)]
    timed = rows[0].index("s/image")
    long = [r[:timed] + r[timed + 1 :] for r in rows if len(r) == len(rows[0])]
    stamp = [r for r in rows if len(r) == 2 and r[0] not in drop]
    return [long, stamp, re.findall(r"<(?:h1|h2|p|p class='answer'|figcaption)>(.*?)</", text)]


def pixels(path: Path) -> np.ndarray[Any, Any]:
    """The decoded picture, all frames of a film."""
    with Image.open(path) as image:
        frames = [f if f.mode in ("L", "RGB") else f.convert("RGB") for f in ImageSequence.Iterator(image)]
        return np.stack([np.asarray(f) for f in frames])


def picture_recipe(path: Path, drop: frozenset[str]) -> Any:
    with Image.open(path) as image:
        text = getattr(image, "text", {}).get("ddim")
    return None if text is None else cleaned(json.loads(text), drop)


def tensors(path: Path) -> Any:
    """Name -> tensor of a file of weights, of latents (with their recipe) or of a training state."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return dict(arrays)
    if path.suffix in (".pt", ".bin"):
        return torch.load(path, map_location="cpu", weights_only=True)
    with safe_open(path, "pt") as file:
        found: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    for key in ("recipe", "ddim_latents"):
        if key in metadata:
            found[f"metadata {key}"] = cleaned(json.loads(metadata[key]), VARY)
    return found


def written(path: Path, drop: frozenset[str]) -> Any:
    """A JSON, JSONL or CSV file without what may vary."""
    text = path.read_text()
    if path.suffix == ".csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        return [{k: v for k, v in row.items() if str(k).removeprefix("stamp_") not in drop} for row in rows]
    found = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    if path.name == "manifest.json":  # its hashes are of PNG files, whose text holds the version: are they right?
        hashes = {n: hashlib.sha256((path.parent / n).read_bytes()).hexdigest() for n in found["sha256"]}
        found["sha256"] = {n: "right" if h == hashes[n] else "wrong" for n, h in found["sha256"].items()}
    return cleaned(found, drop)


def cleaned(value: Any, drop: frozenset[str]) -> Any:
    """JSON without the keys to drop, and with no path of this machine in it."""
    if isinstance(value, dict):
        return {k: cleaned(v, drop) for k, v in value.items() if k not in drop}
    if isinstance(value, list):
        return [cleaned(v, drop) for v in value]
    return placeless(value) if isinstance(value, str) else value


def placeless(text: str) -> str:
    """Text without the places of this run: its folder, where ddim is installed."""
    text = re.sub(r"\S*/bundled/", "BUNDLED/", text.replace(str(World.now.folder), "HERE"))
    return "\n".join(line.rstrip() for line in text.splitlines())


# -- running ---------------------------------------------------------------------------------------------------------


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class World:
    """The working folder, in which every command runs, so that all paths are relative and the same every time."""

    folder: Path
    cold: bool = False
    flags: dict[str, set[str]] = field(default_factory=dict)
    now: World = None  # type: ignore[assignment]  # the one in use

    def ddim(self, *words: object, **environ: str) -> Done:
        """`python -m ddim WORDS`."""
        args = [str(w) for w in words]
        if self.cold:
            command = [sys.executable, "-m", "ddim", *args]
            done = subprocess.run(
                command, cwd=self.folder, env={**os.environ, **environ}, capture_output=True, text=True, check=False
            )
            return Done(done.returncode, done.stdout, done.stderr)
        return forked(lambda: as_program(args, environ), self.folder)

    def accepts(self, command: str, flag: str) -> bool:
        """Whether `ddim COMMAND --help` mentions the flag."""
        if command not in self.flags:
            rows = re.findall(r"^│ ((?:--?[a-z][a-z-]*(?:, )?)+)", self.ddim(command, "--help").out, re.MULTILINE)
            self.flags[command] = {word for row in rows for word in row.split(", ")}
        return flag in self.flags[command]

    def fp32(self, command: str) -> list[str]:
        """--precision fp32 for commands that have it, in this version or in a later one."""
        return ["--precision", "fp32"] if self.accepts(command, "--precision") else []


def forked(job: Callable[[], int], folder: Path) -> Done:
    """Run a job in a fork, in that folder, with its output in files."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            code = 1
            try:
                os.chdir(folder)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                signal.alarm(PATIENCE)
                code = job()
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return Done(code, out.read().decode(), err.read().decode())


def as_program(args: list[str], environ: Mapping[str, str]) -> int:
    """What `python -m ddim ARGS` does, in this process."""
    os.environ.update(environ)
    sys.path[0] = ""  # the working folder, as -m has it; it was this script's
    sys.argv = ["ddim", *args]
    try:
        runpy.run_module("ddim", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def command(
    name: str, line: str, *, keep_text: Callable[[str], str] = str, varies: frozenset[str] = VARY, **environ: str
) -> Item:
    """An item: `ddim LINE`, with {out} in it a new folder (or file) whose contents are the result.

    keep_text takes from stdout what must stay; varies are the keys of recipes and records that need not.
    """
    out = "o/" + name.replace("/", "-").replace("+", "p")

    def act() -> Hashed:
        world = World.now
        words = line.format(out=out).split()
        if "--precision" not in words:
            words += world.fp32(words[0])
        done = world.ddim(*words, **environ)
        values: dict[str, Any] = {"exit": done.code, "stdout": keep_text(text_of(done.out))}
        if done.code or done.err.strip():
            values["stderr"] = text_of(done.err)
        drop = varies | {"precision"} if words[0] in UNSAID else varies
        place = world.folder / out
        if place.is_dir():
            values |= contents(place, drop)
        elif place.is_file():
            values["file"] = tensors(place) if place.suffix in (".safetensors", ".npz") else written(place, drop)
        return hashed(values)

    return name, act


def text_of(text: str) -> str:
    """stdout or stderr without seconds and places."""
    return re.sub(r"\b\d+(\.\d+)?( s\b| seconds?\b)", r"N\2", placeless(text))


def call(name: str, function: Callable[[], Iterable[tuple[str, Any]]]) -> Item:
    """An item: what a Python function yields, run in a fork where ddim is imported anew."""

    def act() -> Hashed:
        place = World.now.folder / f"call-{name.replace('/', '-')}.json"

        def job() -> int:
            torch.set_num_threads(1)
            sys.path[0] = ""
            warnings.simplefilter("ignore")
            place.write_text(json.dumps(hashed(dict(function()))))
            return 0

        done = forked(job, World.now.folder)
        if done.code:
            return hashed({"error": (done.err.strip().splitlines() or [f"exit code {done.code}"])[-1]})
        return {key: (sha, text) for key, (sha, text) in json.loads(place.read_text()).items()}

    return name, act


def steps_of(name: str, *lines: str, folder: str) -> Item:
    """An item: several commands one after the other, and then the contents of one folder."""

    def act() -> Hashed:
        done = [World.now.ddim(*line.split()) for line in lines]
        found = contents(World.now.folder / folder)
        return hashed({"exits": [d.code for d in done], "stdout": text_of("".join(d.out for d in done)), **found})

    return name, act


# -- the list: command line ------------------------------------------------------------------------------------------

SOLVERS = (
    "ddim", "heun", "ab2", "ab3", "ab4", "plms", "dpm++2m", "dpm++3m", "dpm++2m-sde", "unipc", "unipc3", "unipc-b1",
)  # fmt: skip
SPACINGS = (
    "uniform", "quadratic", "logsnr", "trailing", "leading", "linspace", "paper-linear", "paper-quadratic",
    "ermongroup-uniform", "ermongroup-quad", "openai",
)  # fmt: skip
COMMANDS = (
    "train", "sample", "schedule", "info", "import", "export", "encode", "decode", "reconstruct", "consistency",
    "interpolate", "edit", "evaluate", "tune", "bench", "demo",
)  # fmt: skip


def help_items() -> Iterator[Item]:
    """Every command is there, and every flag of it that there was."""

    def flags(name: str) -> Callable[[], Hashed]:
        def act() -> Hashed:
            World.now.accepts(name, "--help")
            own = World.now.flags[name] - ({"--precision"} if name in GETS_PRECISION else set())
            return hashed(dict.fromkeys(sorted(own), "there"))

        return act

    yield command("help/overview", "--help")
    for name in COMMANDS:
        yield f"help/{name}", flags(name)


def schedule_items() -> Iterator[Item]:
    for spacing in SPACINGS:
        yield command(f"schedule/{spacing}", f"schedule mnist --steps 10 --spacing {spacing} --eta 0.5")
    yield command("schedule/diffusers", "schedule mnist --steps 10 --spacing diffusers")
    yield command("schedule/default", "schedule")
    yield command("schedule/one", "schedule mnist --steps 1 --eta 1")
    yield command("schedule/all", "schedule mnist --steps 1000 --eta 1")


def sample_items() -> Iterator[Item]:
    def of(name: str, flags: str, count: str = "--n 4") -> Item:
        return command(f"sample/{name}", f"sample mnist {count} --precision fp32 --out {{out}} {flags}")

    for name, flags in {"0": "--eta 0", "0.5": "--eta 0.5", "1": "--eta 1", "hat": "--sigma-hat"}.items():
        yield of(f"eta-{name}", f"{flags} --steps 5")
    for solver in SOLVERS:
        yield of(f"solver-{solver}", f"--solver {solver} --steps 7 --spacing trailing --label cycle")
    for spacing in (*SPACINGS, "diffusers"):
        yield of(f"spacing-{spacing}", f"--spacing {spacing} --steps 5")
    yield of("spacing-tuned", "--spacing tuned --solver dpm++2m --steps 10")
    for name, flags in SAMPLES.items():
        yield of(name, flags, "" if "--seeds" in flags or "--n " in flags else "--n 4")
    yield command("sample/verify", "sample --verify --out o/sample-npz")
    yield command("sample/config", "sample --config run.yaml --n 2 --precision fp32 --out {out}")


SAMPLES = {
    "default-steps": "--n 2",
    "one-step": "--steps 1",
    "tau": "--tau 981,640,300,1,0",
    "tau-eta1": "--tau 981,640,300,1,0 --eta 1",
    "seed": "--steps 4 --seed 1234567",
    "seeds": "--steps 4 --seeds 3,7-9,100000",
    "label-3": "--steps 4 --label 3",
    "label-list": "--steps 4 --label 3,1,4,1 --eta 0.5",
    "label-cycle": "--steps 4 --label cycle --n 12",
    "guidance-1": "--steps 4 --label cycle --guidance 1",
    "guidance-2": "--steps 4 --label cycle --guidance 2",
    "guidance-2-clip": "--steps 4 --label cycle --guidance 2 --clip True",
    "guidance-dpm": "--steps 4 --label cycle --guidance 1.5 --solver dpm++2m --spacing logsnr",
    "clip": "--steps 4 --clip True",
    "no-clip": "--steps 4 --clip False",
    "clip-heun": "--steps 4 --clip True --solver heun",
    "batch-1": "--steps 4 --n 5 --batch-size 1 --eta 1",
    "batch-2": "--steps 4 --n 5 --batch-size 2 --eta 1",
    "batch-5": "--steps 4 --n 5 --batch-size 5 --eta 1",
    "batch-auto": "--steps 4 --n 5 --batch-size auto --eta 1",
    "npz": "--steps 4 --label cycle --npz",
    "npz-unlabelled": "--steps 4 --npz",
    "no-compile": "--steps 4 --compile never",
    "hat-trailing": "--steps 5 --sigma-hat --spacing trailing --label 7",
}


def job_items() -> Iterator[Item]:
    """Jobs shared by processes and gone on with."""
    job = "sample mnist --n 5 --steps 3 --batch-size 2 --eta 1 --precision fp32 --out o/shared"
    yield command("job/rank0", job, RANK="0", WORLD_SIZE="2")
    yield command("job/rank1", job, RANK="1", WORLD_SIZE="2")
    yield steps_of("job/shared", "sample --verify --out o/shared", folder="o/shared")
    again = "sample mnist --n 5 --steps 3 --batch-size 2 --eta 1 --precision fp32 --out o/again"

    def resumed() -> Hashed:
        World.now.ddim(*again.split())
        lose(World.now.folder / "o/again", ("000001.png", "000004.png", "manifest.json"))
        return steps_of("", again, "sample --verify --out o/again", folder="o/again")[1]()

    yield "job/resumed", resumed
    yield "job/other-recipe", mistake(again.replace("--eta 1", "--eta 0").split(), {})


def lose(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).unlink()


ENCODINGS = {
    "exact": "--method exact --steps 8 --spacing quadratic",
    "exact-uniform": "--method exact --steps 6 --label 3",
    "implicit": "--method implicit --steps 6 --spacing logsnr",
    "bdia": "--method bdia --steps 10 --label 3,1,4",
    "naive": "--method naive --steps 10",
    "batched": "--method exact --steps 5 --spacing quadratic --batch-size 2 --label 3,1,4",
    "guidance": "--method bdia --steps 6 --label 3 --guidance 2",
}


def encode_items() -> Iterator[Item]:
    for name, flags in ENCODINGS.items():
        out = f"o/z-{name}.safetensors"
        yield latents_item(name, f"encode mnist few --precision fp32 --out {out} {flags}", out)
        yield command(f"decode/{name}", f"decode mnist {out} --precision fp32 --out {{out}}")
    yield latents_item("fp64", "encode mnist few/0.png --steps 4 --precision fp64 --out o/z64.safetensors --spacing "
                               "quadratic", "o/z64.safetensors")  # fmt: skip
    yield command("decode/fp64", "decode mnist o/z64.safetensors --precision fp64 --out {out}")
    for name, flags in {"steps": "--steps 5", "label": "--label 8", "guidance": "--label 8 --guidance 2",
                        "spacing": "--steps 10 --spacing quadratic", "batch": "--batch-size 1"}.items():  # fmt: skip
        line = f"decode mnist o/z-bdia.safetensors --precision fp32 --out {{out}} {flags}"
        yield command(f"decode/other-{name}", line)


def latents_item(name: str, line: str, out: str, metadata: bool = True) -> Item:
    def act() -> Hashed:
        done = World.now.ddim(*line.split())
        path = World.now.folder / out
        found = tensors(path) if path.is_file() else {}
        found = {k: v for k, v in found.items() if metadata or not k.startswith("metadata")}
        return hashed({"exit": done.code, "stdout": text_of(done.out), "latents": found})

    return f"encode/{name}", act


PICTURES = {
    "reconstruct/table": "reconstruct mnist few --steps 3,6 --n 2 --method naive,exact,bdia,implicit "
    "--spacing quadratic --precision fp32 --out {out}",
    "reconstruct/labels": "reconstruct mnist classes --steps 5 --n 6 --method naive,exact --label data "
    "--batch-size 4 --precision fp32 --out {out}",
    "reconstruct/printed": "reconstruct mnist few --steps 3 --n 2 --method naive --label 3 --precision fp64",
    "interpolate/strip": "interpolate mnist --between 0 1 --steps 5 --frames 5 --out {out}",
    "interpolate/compare": "interpolate mnist --between 0 1 2 --steps 5 --frames 5 --compare --out {out}",
    "interpolate/grid": "interpolate mnist --between 0 1 2 3 --grid 3x4 --steps 5 --out {out}",
    "interpolate/vp": "interpolate mnist --between 0 1 --path vp --steps 5 --frames 4 --animation gif --out {out}",
    "interpolate/linear": "interpolate mnist --between 0 1 --path linear --steps 5 --frames 4 --animation none "
    "--spacing trailing --out {out}",
    "interpolate/labels": "interpolate mnist --between 5 6 --label 3,8 --guidance 2 --steps 5 --frames 4 --out {out}",
    "interpolate/images": "interpolate mnist --between few/0.png few/1.png --ddpm --seed 3 --steps 6 --frames 4 "
    "--spacing quadratic --out {out}",
    "edit/strength": "edit mnist few/0.png --strength 0.5 --seeds 0-2 --steps 8 --out {out}",
    "edit/strength-eta": "edit mnist few/0.png --strength 0.8 --eta 1 --label 3 --guidance 2 --seeds 5,6 --steps 8 "
    "--out {out}",
    "edit/default": "edit mnist few/1.png --steps 6 --out {out}",
    "edit/mask": "edit mnist few/1.png --mask mask.png --seeds 0-1 --steps 6 --resample 2 --out {out}",
    "edit/mask-label": "edit mnist few/1.png --mask mask.png --label 5 --guidance 1.5 --seeds 1 --steps 6 --resample 3 "
    "--jump 2 --eta 0.5 --out {out}",
    "edit/label": "edit mnist few/2.png --from-label 4 --label 9 --guidance 2 --steps 6 --spacing quadratic "
    "--out {out}",
    "edit/label-strength": "edit mnist few/2.png --from-label 4 --label 9 --strength 0.7 --steps 6 --spacing quadratic "
    "--out {out}",
    "edit/direction": "edit mnist few/0.png --minus light --plus bold --amount 2 --steps 4 --spacing quadratic "
    "--out {out}",
    "consistency/plain": "consistency mnist --n 3 --steps 3,6 --reference 20 --out {out}",
    "consistency/labels": "consistency mnist --n 2 --seed 7 --steps 4 --reference 12 --eta 0,0.5,1 --label 3,8 "
    "--guidance 2 --spacing trailing --out {out}",
}  # fmt: skip


def picture_items() -> Iterator[Item]:
    for name, line in PICTURES.items():
        yield command(name, line)


def evaluate_items() -> Iterator[Item]:
    def words(text: str) -> str:
        """Without the column of seconds, which are never wider than their head."""
        end = text.find("s/image") + len("s/image")
        table, gap, rest = text.partition("\n\n")
        return "\n".join(line[: end - 7] + line[end:] for line in table.splitlines()) + gap + rest

    base = "evaluate mnist classes --n 20 --reference 100 --precision fp32"
    first = f"{base} --steps 5,10 --eta 0,1 --solver ddim,dpm++2m --out o/report"
    yield reported(command("evaluate/first", first, keep_text=words), "o/report")
    more = f"{base} --steps 5,10,6 --eta 0,1 --solver ddim,dpm++2m --also heun:0:4:trailing,ddim:hat:4:uniform"
    yield reported(command("evaluate/more", f"{more} --out o/report", keep_text=words), "o/report")
    other = "--steps 4 --eta 0.5 --guidance 1.5 --clip True --seed 50 --batch-size 7 --held-out few12"
    line = f"{base.replace('--n 20', '--n 12')} {other} --no-sigma-hat --spacing uniform,quadratic"
    yield reported(command("evaluate/other", f"{line} --out o/report2", keep_text=words), "o/report2")
    pixel = "evaluate mnist flat --n 12 --reference 40 --precision fp32 --steps 3 --extractor pixels --out o/report3"
    yield reported(command("evaluate/pixels", pixel, keep_text=words), "o/report3")


def reported(item: Item, folder: str) -> Item:
    """The item, and the report in the folder; of its cells the images and features."""
    name, act = item

    def both() -> Hashed:
        found = act()
        return found | hashed(contents(World.now.folder / folder))

    return name, both


TUNE = "--latents 6 --long 12 --candidates 10 --trials 4 --batch-size 6 --precision fp32"


def tune_items() -> Iterator[Item]:
    yield command("tune/model", "export mnist o/copy")
    yield command("tune/saved", f"tune o/copy classes --steps 4,5 --solver dpm++2m {TUNE} --out {{out}}.json")
    yield command("tune/ddim", f"tune o/copy flat --steps 4 --solver ddim --guidance 1.5 {TUNE}")
    yield command("tune/unsaved", f"tune mnist flat --steps 3 --solver ab2 --no-save {TUNE} --out o/unsaved.json")
    for name in ("o/tune-saved.json", "o/unsaved.json", "o/copy/tuned.json"):
        yield file_item(f"tune/{Path(name).stem}-file", name)
    line = "sample o/copy --n 3 --spacing tuned --solver dpm++2m --steps 5 --precision fp32 --out {out}"
    yield command("tune/used", line)
    yield command("tune/walk", "schedule o/copy --steps 4 --spacing tuned")


def file_item(name: str, path: str) -> Item:
    return name, lambda: hashed({"file": written(World.now.folder / path, VARY)})


TRAIN = (
    "--preset digits --precision fp32 --batch-size 16 --warmup 5 --log-every 1 --checkpoint-every 5 --preview-every 10"
)
TRAININGS = {
    "plain": "digits --labels ignore",
    "labels": "digits --labels use --label-dropout 0.2",
    "v": "digits --prediction v --zero-terminal-snr --schedule cosine --timesteps 40",
    "min-snr": "digits --min-snr-gamma 5 --prediction x0 --schedule sigmoid --accumulation 2 --lr-decay-steps 15",
    "adam": "flat --size 8 --optimizer adam --weight-decay 0.01 --flip --ema 0.9 --clip 0.5 --lr 0.001 --seed 3",
}


def train_items() -> Iterator[Item]:
    for name, flags in TRAININGS.items():
        line = f"train {flags} {TRAIN} --out o/run-{name} --max-steps"
        yield trained(f"train/{name}-10", f"{line} 10", f"o/run-{name}")
        yield trained(f"train/{name}-20", f"{line} 20 --resume", f"o/run-{name}")
        sample = f"sample o/run-{name} --n 3 --steps 4 --precision fp32 --out {{out}}"
        yield command(f"train/{name}-sample", sample)
    straight = f"train {TRAININGS['labels']} {TRAIN} --out o/straight --max-steps 20"
    yield trained("train/straight", straight, "o/straight")
    tuned = f"train classes --size 8 --init o/run-labels {TRAIN} --out o/fine --max-steps 10"
    yield trained("train/init", tuned, "o/fine")
    yield command("train/info", "info o/run-labels")
    small = f"train digits {TRAIN} --timesteps 12 --out o/run-small --max-steps 10"
    yield trained("train/small", small, "o/run-small")
    yield "train/demo", demo
    line = "encode o/run-labels few --steps 8 --label 3 --precision fp32 --out o/z-run.safetensors"
    yield latents_item("run", line, "o/z-run.safetensors")
    yield command("decode/run", "decode o/run-labels o/z-run.safetensors --precision fp32 --out {out}")
    yield command("bench/mnist", "bench mnist --repeats 1 --steps 1 --batch-size 1", keep_text=without_speed)


def without_speed(text: str) -> str:
    """What a benchmark says that does not hang on the clock: the model, and what was measured."""
    lines = text.splitlines()
    return "\n".join([*lines[:2], *(re.split(r"  +", line.strip())[0] for line in lines[3:9])])


def trained(name: str, line: str, folder: str) -> Item:
    """A training run: the weights, the state, the log's numbers, the previews and what is said."""

    def act() -> Hashed:
        done = World.now.ddim(*line.split())
        found = run_contents(World.now.folder / folder)
        return hashed({"exit": done.code, "stdout": text_of(done.out), "stderr": text_of(done.err), **found})

    return name, act


def run_contents(folder: Path) -> dict[str, Any]:
    found = contents(folder)
    state = found.get("tensors", {})
    return {**{k: v for k, v in found.items() if k != "tensors"}, **{f"tensors {k}": v for k, v in state.items()}}


def demo() -> Hashed:
    """The demo of a model of 12 steps; its picture without the labels at the left, which name seconds."""
    done = World.now.ddim("demo", "o/run-small", "--out", "o/demo", *World.now.fp32("demo"))
    whole = pixels(World.now.folder / "o/demo/demo.png")[0]
    lines = text_of(done.out).splitlines()
    return hashed({"exit": done.code, "pixels": whole[:, -(10 * 56 + 9 * 4) :], "first": lines[0], "last": lines[-1]})


class Golden(NamedTuple):
    """Another program's checkpoint, and the settings its file does not hold."""

    folder: str
    file: str
    settings: str = ""
    labels: str = ""


GOLDEN = {
    "mnist-like": Golden("diffusers/mnist-like", "pipeline"),
    "legacy-attention": Golden("diffusers/legacy-attention-keys", "pipeline"),
    "ermon-plain": Golden("ermongroup/plain", "model-790000.ckpt"),
    "ermon-ckpt": Golden("ermongroup/ckpt", "ckpt.pth"),
    "improved": Golden("improved-diffusion/learn-sigma-cosine", "ema_0.9999_000100.pt"),
    "adm": Golden("guided-diffusion/adm-legacy-attention", "ema_0.9999_000100.pt", labels=" --label cycle"),
    "lucidrains": Golden("lucidrains/pred-v-sigmoid", "model-1.pt"),
}
SETTINGS = {  # the same by --set, or by the peer's own file
    "adm": "--set image_size=16 num_head_channels=16",
    "lucidrains": "--set diffusion.image_size=16",
    "lucidrains-raw": "--set diffusion.image_size=16 ema=false",
    "ermon-ckpt": "--config golden/ermongroup/ckpt/config.yml",
    "mnist-like": "--set beta_start=1e-5",
}


def golden_settings(name: str) -> dict[str, Any]:
    """What tests/test_checkpoints_golden.py gives beside the file."""
    facts = json.loads((DATA / "golden" / GOLDEN[name].folder / "case.json").read_text())
    if "config" in facts:
        return {k: facts["config"][k] for k in ("data", "model", "diffusion")}
    keep = ("model_kwargs", "diffusion_kwargs", "image_size", "unet_kwargs")
    return {k: facts[k] for k in keep if k in facts}


def golden_items() -> Iterator[Item]:
    for name, golden in GOLDEN.items():
        source, config = f"golden/{golden.folder}/{golden.file}", f"--config settings-{name}.json"
        yield command(f"import/{name}", f"import {source} {{out}} {config}")
        yield command(f"import/{name}-info", f"info {source} {config}")
        yield command(f"import/{name}-folder", f"info o/import-{name}")
        sample = f"sample o/import-{name} --n 3 --steps 5 --eta 0.5{golden.labels} --precision fp32 --out {{out}}"
        yield command(f"import/{name}-sample", sample)
        own = f"sample o/import-{name} --n 2 --steps 5 --spacing diffusers{golden.labels} --out {{out}}"
        yield command(f"import/{name}-own", own)
    for name, flags in SETTINGS.items():
        golden = GOLDEN[name.removesuffix("-raw")]
        yield command(f"import/{name}-set", f"import golden/{golden.folder}/{golden.file} {{out}} {flags}")
    check = "info golden/ermongroup/ckpt/ckpt.pth --config settings-ermon-ckpt.json --check --data colour"
    yield command("import/probe", check)
    yield command("import/bundled-info", "info")


def export_items() -> Iterator[Item]:
    yield command("export/diffusers", "export mnist {out}")
    yield command("export/fp16", "export mnist {out} --dtype fp16")
    adm = GOLDEN["adm"]
    yield command("export/import", f"import golden/{adm.folder}/{adm.file} {{out}} --config settings-adm.json")
    yield command("export/adm", "export o/export-import {out}")
    yield command("export/sample", "sample o/export-diffusers --n 3 --steps 4 --label 2 --precision fp32 --out {out}")
    traced: dict[str, Any] = {"keep_text": hashless, "varies": VARY | {"sha256", "weights"}}
    yield command("export/onnx", "export mnist {out} --to onnx", **traced)
    yield command("export/onnx-info", "info o/export-onnx", **traced)
    line = "sample o/export-onnx --n 3 --steps 4 --label cycle --guidance 2 --precision fp32 --out {out}"
    yield command("export/onnx-sample", line, **traced)
    line = "encode o/export-onnx few --steps 5 --method bdia --precision fp32 --out o/z-onnx.safetensors"
    yield latents_item("onnx", line, "o/z-onnx.safetensors", metadata=False)


def hashless(text: str) -> str:
    """Torch writes the source's files and lines into an ONNX file: its hash and size are no promise."""
    return re.sub(r"sha256 [0-9a-f]+|[0-9.]+ MB", "..", text)


# -- the list: a user's mistakes -------------------------------------------------------------------------------------

MISTAKES = {
    "no-command": "",
    "unknown-command": "smaple mnist",
    "unknown-flag": "sample mnist --no-such-flag --out o/m",
    "no-out": "sample mnist",
    "no-model": "sample /nowhere --out o/m",
    "not-a-model": "sample few/0.png --out o/m",
    "out-in-use": "sample mnist --n 1 --steps 1 --out few",
    "steps-0": "sample mnist --steps 0 --out o/m",
    "steps-1001": "sample mnist --steps 1001 --out o/m",
    "eta-negative": "sample mnist --eta -1 --out o/m",
    "eta-9": "sample mnist --eta 9 --out o/m",
    "eta-heun": "sample mnist --eta 0.5 --solver heun --out o/m",
    "solver": "sample mnist --solver magic --out o/m",
    "spacing": "sample mnist --spacing sideways --out o/m",
    "tau-rises": "sample mnist --tau 500,600,0 --out o/m",
    "label-10": "sample mnist --label 10 --out o/m",
    "guidance-alone": "sample mnist --guidance 2 --out o/m",
    "seeds-twice": "sample mnist --seeds 1,1 --out o/m",
    "device": "sample mnist --device warp --out o/m",
    "precision": "sample mnist --precision fp12 --out o/m",
    "verify-nothing": "sample --verify --out o/nothing",
    "encode-nothing": "encode mnist nowhere.png --out o/m.safetensors",
    "decode-nothing": "decode mnist nowhere.safetensors --out o/m",
    "decode-garbage": "decode mnist few/0.png --out o/m",
    "interpolate-one": "interpolate mnist --between 0 --out o/m",
    "edit-mixed": "edit mnist few/0.png --mask mask.png --strength 0.5 --out o/m",
    "evaluate-few": "evaluate mnist few --n 20 --out o/m",
    "tune-noisy": "tune mnist flat --solver dpm++2m-sde --no-save --out o/m.json",
    "train-exists": "train digits --preset digits --out few",
    "train-nothing": "train nowhere --out o/m",
    "train-resume-nothing": "train digits --preset digits --resume --out o/m",
    "import-unsaid": "import golden/lucidrains/pred-v-sigmoid/model-1.pt o/m",
    "import-misspelt": "import golden/lucidrains/pred-v-sigmoid/model-1.pt o/m --set diffusion.image_sise=16",
    "export-exists": "export mnist few",
    "config-misspelt": "sample --config bad.yaml --out o/m",
    "rank-alone": "sample mnist --n 1 --out o/m",
}


def mistake_items() -> Iterator[Item]:
    for name, line in MISTAKES.items():
        environ = {"RANK": "1"} if name == "rank-alone" else {}
        yield f"mistake:{name}", mistake(line.split(), environ)


def mistake(words: list[str], environ: Mapping[str, str]) -> Callable[[], Hashed]:
    """Only the exit code counts, and that nothing is left behind; the words are kept beside it."""

    def act() -> Hashed:
        done = World.now.ddim(*words, **environ)
        left = (World.now.folder / "o/m").exists() or (World.now.folder / "o/m.json").exists()
        return {"": (digest(done.code), f"{done.code} {text_of(done.err).strip()}"), **hashed({"left behind": left})}

    return act


# -- the list: Python ------------------------------------------------------------------------------------------------


def api_items() -> Iterator[Item]:
    for function in (
        api_names, api_tau, api_schedule, api_noise, api_gaussian, api_mixture, api_network, api_paths, api_wrappers,
        api_model, api_model_solvers, api_encode, api_golden, api_readme,
    ):  # fmt: skip
        yield call(f"api/{function.__name__.removeprefix('api_')}", function)


def api_names() -> Iterator[tuple[str, Any]]:
    import ddim

    for name in (
        "AB", "DDIM", "PLMS", "Clip", "DPMSolverPP", "Denoiser", "DynamicThreshold", "GaussianDenoiser", "Guided",
        "Heun", "Latents", "Level", "MixtureDenoiser", "Model", "NetworkDenoiser", "Objective", "Prediction",
        "Schedule", "Solver", "UniPC", "decode", "encode", "lerp", "load", "noise", "sample", "slerp", "tau",
        "trajectory", "vp_lerp",
    ):  # fmt: skip
        yield name, hasattr(ddim, name)


def refused(make: Callable[[], Any]) -> Any:
    """The result, or the kind of the error: its words may change."""
    try:
        return make()
    except Exception as error:
        return type(error).__name__


def api_tau() -> Iterator[tuple[str, Any]]:
    import ddim

    for spacing in SPACINGS:
        steps = [*range(1, 61), 99, 100, 101, 199, 200, 249, 250, 333, 499, 500, 501, 998, 999, 1000, 1001, 0]
        yield spacing, [refused(lambda S=S, k=spacing: ddim.tau(1000, S, k)) for S in steps]
        small = [(T, S) for T in (1, 2, 7, 50, 200) for S in range(1, T + 1)]
        yield f"{spacing} short", [refused(lambda T=T, S=S, k=spacing: ddim.tau(T, S, k)) for T, S in small]
    table = ddim.Schedule.cosine(1000).alpha_bar.tolist()
    yield "logsnr cosine", [ddim.tau(1000, S, "logsnr", alpha_bar=table) for S in (1, 2, 5, 10, 50)]
    table = ddim.Schedule.linear(1000).zero_terminal_snr().alpha_bar.tolist()
    yield "logsnr zero", [ddim.tau(1000, S, "logsnr", alpha_bar=table) for S in (1, 2, 5, 10, 50)]
    yield "offset", [ddim.tau(1000, S, "leading", offset=1) for S in (1, 5, 10, 20)]
    wrong = [(500, 600, 0), (500, 0.5, 0), (500, 1), (1001, 0), (0,), ()]
    yield "explicit", ddim.tau(1000, None, (981, 640, 1, 0))
    yield "refused", [refused(lambda t=t: ddim.tau(1000, None, t)) for t in wrong]


def schedules() -> dict[str, Any]:
    import ddim

    s = ddim.Schedule
    return {
        "linear": s.linear(1000), "linear50": s.linear(50), "betas": s.linear(100, beta_start=1e-3, beta_end=0.05),
        "scaled": s.scaled_linear(1000), "cosine": s.cosine(1000), "cosine-offset": s.cosine(200, offset=0.02),
        "sigmoid": s.sigmoid(1000), "zero": s.linear(1000).zero_terminal_snr(),
        "zero-cosine": s.cosine().zero_terminal_snr(),
        "from-betas": s.from_betas([0.1, 0.2, 0.3, 0.4]), "table": s([1.0, 0.7, 0.2, 0.0]),
        "function": s.from_alpha_bar_function(lambda u: (1 - u) ** 2 + 1e-4, 30),
    }  # fmt: skip


def api_schedule() -> Iterator[tuple[str, Any]]:
    import ddim

    for name, s in schedules().items():
        at = [tuple(s.at(t)) for t in sorted({0, 1, s.T // 2, s.T})]
        batch = s.at_batch(torch.tensor([0, 1, s.T]), torch.zeros(3, 2, 2))
        yield name, [s.T, s.alpha_bar, s.betas(), at, list(batch), s.has_zero_terminal_snr, repr(s)]
    wrong = [lambda: ddim.Schedule([1.0]), lambda: ddim.Schedule([0.9, 0.5]), lambda: ddim.Schedule([1.0, 1.0]),
             lambda: ddim.Schedule([1.0, -0.1]), lambda: ddim.Schedule.linear(0)]  # fmt: skip
    yield "refused", [refused(make) for make in wrong]


def api_noise() -> Iterator[tuple[str, Any]]:
    import ddim

    yield "x_T", ddim.noise([0, 1, 2, 3], (3, 32, 32))
    yield "large seeds", ddim.noise([10**9, 2**40, 7], (2, 5))
    yield "float64", ddim.noise([5], (4, 4), dtype=torch.float64)
    yield "purpose", ddim.noise([5, 6], (4, 4), purpose="step", step=17)
    yield "empty", ddim.noise([], (2, 2))
    yield "refused", refused(lambda: ddim.noise([-1], (2,)))


def solver_objects() -> dict[str, Any]:
    import ddim

    return {
        "ddim": ddim.DDIM(), "eta0.5": ddim.DDIM(eta=0.5), "eta1": ddim.DDIM(eta=1.0), "hat": ddim.DDIM(sigma="hat"),
        "hat-unmasked": ddim.DDIM(sigma="hat-unmasked"), "heun": ddim.Heun(), "ab2": ddim.AB(2), "ab3": ddim.AB(3),
        "ab4": ddim.AB(4), "plms": ddim.PLMS(), "dpm1": ddim.DPMSolverPP(1), "dpm2": ddim.DPMSolverPP(2),
        "dpm3": ddim.DPMSolverPP(3), "dpm3-published": ddim.DPMSolverPP(3, published=True),
        "sde1": ddim.DPMSolverPP(1, stochastic=True), "sde2": ddim.DPMSolverPP(2, stochastic=True),
        "unipc1": ddim.UniPC(1), "unipc2": ddim.UniPC(2), "unipc3": ddim.UniPC(3), "unipc2-b1": ddim.UniPC(2, "B1"),
    }  # fmt: skip


def api_gaussian() -> Iterator[tuple[str, Any]]:
    """Every solver on a Gaussian, on several schedules, times and number formats."""
    import ddim

    for name, solver in solver_objects().items():
        yield f"{name} facts", [solver.order, solver.nfe, solver.stochastic]
        for place, s in schedules().items():
            yield f"{name} {place}", [refused(lambda w=w, v=solver, s=s: walked(s, v, *w)) for w in WALKS]
    covariance = torch.diag(torch.linspace(0.1, 2, 12)) + 0.05
    denoise = ddim.GaussianDenoiser(ddim.Schedule.linear(), torch.linspace(-1, 1, 12), covariance)
    x_T = ddim.noise(range(5), (3, 2, 2))
    p = denoise(x_T, 300)
    yield "prediction", [p.x0, p.eps]
    yield "flow", [denoise.flow(x_T, 1000, 0), denoise.flow(x_T, 700, 20)]
    yield "full", [ddim.sample(denoise, x_T, ddim.tau(1000, S), solver=ddim.AB(3)) for S in (5, 20)]
    yield "sigmas", ddim.sample(denoise, x_T, (900, 400, 1, 0), solver=ddim.DDIM(sigma={900: 0.1, 400: 0.0, 1: 0.0}),
                                seeds=range(5))  # fmt: skip


WALKS = ((1, "uniform", torch.float32), (2, "uniform", torch.float32), (4, "trailing", torch.float32),
         (9, "uniform", torch.float64), (12, "trailing", torch.float64), (9, "logsnr", torch.float32))  # fmt: skip


def walked(schedule: Any, solver: Any, steps: int, spacing: str, dtype: torch.dtype) -> Any:
    import ddim

    denoise = ddim.GaussianDenoiser(schedule, 0.3, torch.linspace(0.2, 1.5, 8))
    times = ddim.tau(schedule.T, steps, spacing, alpha_bar=schedule.alpha_bar.tolist())
    seeds = [3, 1, 4]
    return ddim.sample(denoise, ddim.noise(seeds, (8,), dtype=dtype), times, solver=solver, seeds=seeds)


def mixture() -> Any:
    import ddim

    means = [torch.full((6,), -1.0), torch.linspace(-1, 1, 6), torch.full((6,), 0.8)]
    covariances = [0.05, 0.1, torch.linspace(0.01, 0.2, 6)]
    return ddim.MixtureDenoiser(ddim.Schedule.cosine(), [1.0, 2.0, 0.5], means, covariances)


def api_mixture() -> Iterator[tuple[str, Any]]:
    import ddim

    denoise, seeds = mixture(), list(range(6))
    for name, solver in solver_objects().items():
        times = ddim.tau(1000, 15, "trailing")
        yield name, ddim.sample(denoise, ddim.noise(seeds, (6,)), times, solver=solver, seeds=seeds)
    x = ddim.sample(denoise, ddim.noise(seeds, (6,), dtype=torch.float64), ddim.tau(1000, 30))
    for method in ("naive", "implicit", "bdia", "exact"):
        z = ddim.encode(denoise, x, ddim.tau(1000, 12), method)
        yield f"encode {method}", [*latents(z), ddim.decode(denoise, z)]
    yield "decode plain", ddim.decode(denoise, ddim.noise(seeds, (6,)), ddim.tau(1000, 7))


def latents(z: Any) -> list[Any]:
    """All that encoding gives."""
    c = z.certificate
    return [z.x_T, z.coupled, z.states, list(z.unsolved), list(z.recipe.tau), z.recipe.method, z.recipe.gamma,
            c.residual, c.psnr, c.max_error, c.nfe, str(c)]  # fmt: skip


def network(x: torch.Tensor, t: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
    """A network of nobody's, smooth in x and t, that knows classes."""
    shift = 0.0 if label is None else 0.1 * label.to(x.dtype).view(-1, *([1] * (x.ndim - 1)))
    return torch.tanh(x + shift) * (0.5 + 0.5 * torch.cos(t.to(x.dtype) / 400)).view(-1, *([1] * (x.ndim - 1)))


def api_network() -> Iterator[tuple[str, Any]]:
    """One's own network, as in the README, for every prediction."""
    import ddim

    x_T, seeds, label = ddim.noise([0, 1, 2, 3], (3, 8, 8)), [0, 1, 2, 3], torch.tensor([0, 1, 2, 3])
    for prediction in ("eps", "x0", "v"):
        denoise = ddim.NetworkDenoiser(network, ddim.Schedule.linear(1000), prediction=prediction)
        p = denoise(x_T, 500)
        yield f"{prediction} one", [p.x0, p.eps, *denoise(x_T, torch.tensor([1, 10, 500, 1000]))]
        for name in ("ddim", "eta0.5", "heun", "dpm2"):
            times = ddim.tau(1000, 10, "uniform")
            solver = solver_objects()[name]
            yield f"{prediction} {name}", ddim.sample(denoise, x_T, times, solver=solver, seeds=seeds, label=label)
        z = ddim.encode(denoise, x_T.tanh(), ddim.tau(1000, 8, "quadratic"), label=label)
        yield f"{prediction} latents", [*latents(z), ddim.decode(denoise, z, label=label)]


def api_wrappers() -> Iterator[tuple[str, Any]]:
    """Clip, threshold, guidance; the walk state by state; the training objective."""
    import ddim

    base = ddim.NetworkDenoiser(network, ddim.Schedule.linear(1000))
    x_T, label = ddim.noise([0, 1, 2], (1, 6, 6)), torch.tensor([2, 0, 1])
    kinds = {
        "clip": ddim.Clip(base), "clip narrow": ddim.Clip(base, -0.5, 0.7), "threshold": ddim.DynamicThreshold(base),
        "threshold 2": ddim.DynamicThreshold(base, 0.9, 1.5), "guided": ddim.Guided(base, 3.0, 5),
        "rescaled": ddim.Guided(base, 3.0, 5, rescale=0.7), "interval": ddim.Guided(base, 3.0, 5, interval=(100, 700)),
    }  # fmt: skip
    for name, denoise in kinds.items():
        yield name, ddim.sample(denoise, x_T, ddim.tau(1000, 6), label=label)
    walk = ddim.trajectory(base, ddim.Heun(), ddim.tau(1000, 5), x_T)
    yield "trajectory", [[s.s, s.x, s.prediction.x0, s.prediction.eps] for s in walk]
    for prediction, gamma in (("eps", None), ("eps", 5.0), ("x0", 5.0), ("v", None), ("v", 5.0)):
        t, eps = torch.tensor([1, 500, 1000]), ddim.noise([7, 8, 9], (1, 6, 6))
        losses = ddim.Objective(prediction, gamma).losses(network(x_T, t), x_T.tanh(), eps, t, ddim.Schedule.cosine())
        yield f"objective {prediction} {gamma}", losses


def api_paths() -> Iterator[tuple[str, Any]]:
    import ddim

    a, b = ddim.noise([0], (3, 8, 8))[0], ddim.noise([1], (3, 8, 8))[0]
    many = ddim.noise([2, 3], (3, 8, 8)), ddim.noise([4, 5], (3, 8, 8))
    for rule in (ddim.slerp, ddim.vp_lerp, ddim.lerp):
        ends = [rule(a, b, u) for u in (0.0, 0.25, 0.5, 1.0)]
        batch = [rule(*many, 0.3), rule(*many, torch.linspace(0, 1, 4)), rule(a.double(), b.double(), 0.7)]
        yield rule.__name__, [*ends, rule(a, b, torch.linspace(0, 1, 5)), *batch, rule(a, a, 0.5)]
    yield "refused", [refused(lambda: ddim.slerp(a, -a, 0.5)), refused(lambda: ddim.slerp(a, 0 * a, 0.5))]


FP32: dict[str, Any] = {"precision": "fp32"}


def api_model() -> Iterator[tuple[str, Any]]:
    import ddim

    m = ddim.load("mnist")
    yield "facts", [repr(m.schedule), m.prediction, list(m.shape), m.num_classes, m.null_label, m.weights_hash]
    yield "tau", [m.tau(S, k) for S in (1, 5, 20) for k in (*SPACINGS, "diffusers") if (S, k) != (1, "openai")]
    yield "tuned", m.tau(10, "tuned", solver="dpm++2m")
    for eta in (0.0, 0.5, 1.0):
        yield f"eta {eta}", m.sample(3, steps=5, eta=eta, seed=11, **FP32)
    yield "labels", m.sample(5, steps=4, label=[0, 1, 2, 3, 4], eta=0.5, **FP32)
    yield "guidance", [m.sample(3, steps=4, label=[7, 8, 9], guidance=w, **FP32) for w in (1.0, 2.0)]
    yield "clip", [m.sample(2, steps=4, clip=c, **FP32) for c in (None, True, False)]
    yield "batches", [m.sample(5, steps=3, eta=1.0, batch_size=b, **FP32) for b in (1, 2, 5)]
    yield "seeds", m.sample(seeds=[5, 99, 3], steps=4, **FP32)
    yield "explicit", m.sample(2, tau=(900, 500, 100, 0), **FP32)
    yield "from latents", m.sample(latents=ddim.noise([4, 5], m.shape), steps=4, spacing="trailing", **FP32)
    yield "fp64", m.sample(2, steps=3, precision="fp64")
    wrong = [{"n": 0}, {"n": 1, "eta": 0.5, "solver": "heun"}, {"n": 1, "label": 10}, {"n": 1, "guidance": 2.0},
             {"n": 1, "steps": 0}, {"n": 2, "label": [1, 2, 3]}, {"n": 1, "seeds": [1]}, {}]  # fmt: skip
    yield "refused", [refused(lambda k=k: m.sample(**k, **FP32)) for k in wrong]


def api_model_solvers() -> Iterator[tuple[str, Any]]:
    import ddim

    m = ddim.load()
    for name in SOLVERS:
        yield name, m.sample(3, steps=6, solver=name, spacing="logsnr", label=[1, 2, 3], **FP32)
    for name, solver in solver_objects().items():
        yield f"object {name}", m.sample(2, steps=4, solver=solver, **FP32)


def api_encode() -> Iterator[tuple[str, Any]]:
    import ddim

    m, x = ddim.load("mnist"), digits(3)
    for method in ("naive", "implicit", "bdia", "exact"):
        z = m.encode(x, steps=5, spacing="quadratic", method=method, label=[3, 1, 4], **FP32)
        yield method, [*latents(z), z.recipe.conditions, m.decode(z, label=[3, 1, 4], **FP32)]
        yield f"{method} other", m.decode(z, label=[5, 6, 7], steps=4, **FP32)
    z = m.encode(x[:1].double(), steps=4, spacing="quadratic", precision="fp64")
    yield "fp64", [*latents(z), m.decode(z, precision="fp64")]
    z = m.encode(x, tau=(800, 300, 50, 0), method="bdia", label=3, guidance=2.0, **FP32)
    yield "guided", [*latents(z), m.decode(z, label=3, guidance=2.0, **FP32)]
    z.save("api-z.safetensors")
    again = ddim.Latents.load("api-z.safetensors")
    x = m.decode(again, label=3, guidance=2.0, **FP32)
    yield "file", [tensors(Path("api-z.safetensors")), again.recipe == z.recipe, x]
    yield "plain", m.decode(z[0:2], steps=4, **FP32)


def api_golden() -> Iterator[tuple[str, Any]]:
    import ddim

    for name, golden in GOLDEN.items():
        m = ddim.load(Path("golden") / golden.folder / golden.file, config=golden_settings(name))
        label = [1, 2] if golden.labels else None
        facts = [m.schedule.alpha_bar, m.prediction, list(m.shape), m.num_classes, m.null_label, m.weights_hash]
        yield name, [*facts, m.tau(10, "diffusers"), m.sample(2, steps=5, eta=0.5, label=label, **FP32)]
        z = m.encode(m.sample(2, steps=4, label=label, clip=True, **FP32), steps=4, method="bdia", label=label, **FP32)
        yield f"{name} latents", [*latents(z), m.decode(z, label=label, **FP32)]


def api_readme() -> Iterator[tuple[str, Any]]:
    """The first example of the README, in fp32."""
    import ddim

    model = ddim.load("mnist")
    x = model.sample(10, steps=20, label=list(range(10)), eta=0.5, **FP32)
    z = model.encode(x, steps=20, label=list(range(10)), method="bdia", **FP32)
    yield "images", [x, model.decode(z, label=list(range(10)), **FP32)]


# -- data ------------------------------------------------------------------------------------------------------------


def digits(n: int) -> torch.Tensor:
    pixels = np.load(DATA / "mnist-100.npz")["pixels"][:n]
    return torch.from_numpy(pixels).movedim(-1, 1).float() / 127.5 - 1


def prepare(folder: Path) -> None:
    """Data, settings and options that the commands read, in the working folder."""
    with np.load(DATA / "mnist-100.npz") as arrays:
        images, labels = arrays["pixels"][..., 0], arrays["labels"]
    order = np.argsort(images.reshape(len(images), -1).mean(1), kind="stable")
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        save(folder / "classes" / str(label) / f"{i:03d}.png", image)
        save(folder / "flat" / f"{i:03d}.png", image)
    for name, places in {"few": range(3), "few12": range(40, 52), "light": order[:2], "bold": order[-2:]}.items():
        for k, i in enumerate(places):
            save(folder / name / f"{k}.png", images[i])
    mask = np.zeros((28, 28), np.uint8)
    mask[14:, :] = 255
    save(folder / "mask.png", mask)
    for i in range(5):
        picture = np.full((16, 16, 3), 40 * i, np.uint8)
        picture[4:9, 2 + i : 9 + i] = (200, 30 * i, 90)
        save(folder / "colour" / f"{i}.png", picture)
    shutil.copytree(DATA / "golden", folder / "golden")
    for name in GOLDEN:
        (folder / f"settings-{name}.json").write_text(json.dumps(golden_settings(name)))
    (folder / "run.yaml").write_text("model: mnist\nsteps: 3\nn: 7\neta: 0.5\nclip: true\nlabel: cycle\n")
    (folder / "bad.yaml").write_text("stepz: 2\n")
    (folder / "o").mkdir()


def save(path: Path, picture: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


# -- old artefacts ---------------------------------------------------------------------------------------------------

RUN = "train digits --labels use --prediction v --min-snr-gamma 5 " + TRAIN
PLAIN_RUN = "train digits --labels ignore " + TRAIN
JOB = "sample mnist --n 8 --steps 5 --eta 1 --label cycle --batch-size 3"
REPORT = "evaluate mnist flat --n 20 --reference 100 --eta 0,1 --solver ddim,dpm++2m --steps"
OLD_LATENTS = {k: ENCODINGS[k] for k in ("exact", "exact-uniform", "implicit", "bdia", "naive", "guidance")}
GONE = ("000002.png", "000003.png", "000007.png", "manifest.json", "grid.png")
MAKE_OLD = (
    f"{RUN} --max-steps 10 --out run10", f"{RUN} --max-steps 20 --out run20",
    f"{PLAIN_RUN} --max-steps 10 --out plain10", f"{PLAIN_RUN} --max-steps 20 --out plain20",
    f"{JOB} --precision fp32 --out whole", f"{JOB} --precision fp32 --out half", f"{JOB} --out half-default",
    f"{REPORT} 5,10 --precision fp32 --out report", f"{REPORT} 5,10 --out report-default",
    *(f"encode mnist few {flags} --out z-{name}.safetensors" for name, flags in OLD_LATENTS.items()),
    "export mnist copy", f"tune copy flat --steps 5 --solver dpm++2m {TUNE} --out tau.json",
    "export mnist onnx --to onnx", "export mnist half-weights --dtype fp16",
    *(f"import golden/{g.folder}/{g.file} import-{name} --config settings-{name}.json" for name, g in GOLDEN.items()),
)  # fmt: skip


def old_training() -> Iterator[Item]:
    for name, line in {"run": RUN, "plain": PLAIN_RUN}.items():
        yield trained(f"resume/{name}", f"{line} --max-steps 20 --out {name}10 --resume", f"{name}10")
        yield command(f"resume/{name}-sample", f"sample {name}10 --n 3 --steps 4 --precision fp32 --out {{out}}")
        yield command(f"run/{name}-sample", f"sample {name}20 --n 3 --steps 4 --precision fp32 --out {{out}}")
        yield command(f"run/{name}-info", f"info {name}20")
    yield trained("run/init", f"{RUN} --init run20 --max-steps 5 --out o/fine", "o/fine")
    yield "run/other-recipe", mistake(f"{RUN} --lr 1 --max-steps 30 --out run20 --resume".split(), {})


def old_jobs() -> Iterator[Item]:
    yield command("job/verify", "sample --verify --out whole")
    yield steps_of("job/half", f"{JOB} --precision fp32 --out half", "sample --verify --out half", folder="half")
    yield steps_of("job/half-default", f"{JOB} --out half-default", folder="half-default")
    yield "job/other-recipe", mistake(f"{JOB} --precision fp32 --guidance 2 --out half".split(), {})


def old_latents() -> Iterator[Item]:
    for name in OLD_LATENTS:
        yield command(f"latents/{name}", f"decode mnist z-{name}.safetensors --precision fp32 --out {{out}}")
    yield "latents/default", old_default_decode
    yield call("latents/api", api_old_latents)


def old_default_decode() -> Hashed:
    """As it was typed before there was anything to say about precision."""
    done = World.now.ddim("decode", "mnist", "z-bdia.safetensors", "--out", "o/default")
    found = contents(World.now.folder / "o/default", VARY | {"precision"})
    return hashed({"exit": done.code, "stdout": text_of(done.out), **found})


def api_old_latents() -> Iterator[tuple[str, Any]]:
    import ddim

    m = ddim.load("mnist")
    for name in OLD_LATENTS:
        z = ddim.Latents.load(f"z-{name}.safetensors")
        label, guidance = z.recipe.conditions.get("label"), z.recipe.conditions.get("guidance", 1.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            x = m.decode(z, label=label, guidance=guidance, **FP32)
        strange = [str(w.message) for w in caught if "recipe" in str(w.message)]
        yield name, [*latents(z), list(z.names), x, strange]


def old_reports() -> Iterator[Item]:
    for name, flags in {"report": " --precision fp32", "report-default": ""}.items():
        yield f"evaluate/{name}", old_report(f"{REPORT} 5,10{flags} --out {name}", name)
    yield "evaluate/more", old_report(f"{REPORT} 5,10,3 --precision fp32 --out report", "report", seconds=False)


def old_report(line: str, name: str, seconds: bool = True) -> Callable[[], Hashed]:
    """The rows of a report made again; their seconds too: these are those of then if the cells were used again."""

    def act() -> Hashed:
        done, folder = World.now.ddim(*line.split()), World.now.folder / name
        values: dict[str, Any] = {"exit": done.code, **contents(folder)}
        if seconds:
            rows = json.loads((folder / "report.json").read_text())["rows"]
            values["seconds"] = [row["seconds_per_image"] for row in rows]
        return hashed(values)

    return act


def old_models() -> Iterator[Item]:
    def of(name: str, flags: str) -> Item:
        return command(f"model/{name}", f"sample {flags} --n 3 --precision fp32 --out {{out}}")

    yield of("tuned", "copy --spacing tuned --solver dpm++2m --steps 5")
    yield "model/tuned-file", file_item("", "copy/tuned.json")[1]
    yield of("bundled-tuned", "mnist --spacing tuned --solver dpm++2m --steps 10")
    yield of("onnx", "onnx --steps 4 --label cycle --guidance 2")
    yield command("model/onnx-info", "info onnx")
    yield of("half-weights", "half-weights --steps 4 --label 3")
    for name, golden in GOLDEN.items():
        yield of(name, f"import-{name} --steps 5 --eta 0.5{golden.labels}")
        yield command(f"model/{name}-info", f"info import-{name}")


OLD: dict[str, Callable[[], Iterator[Item]]] = {
    "training": old_training, "jobs": old_jobs, "latents": old_latents, "reports": old_reports, "models": old_models,
}  # fmt: skip


def make_old(folder: Path) -> None:
    """Make the artefacts, and keep beside them what the code of now makes of them."""
    folder.mkdir(parents=True)
    with working(False, False, folder) as world:
        prepare(folder)
        for line in MAKE_OLD:
            done = world.ddim(*line.split())
            print(f"{done.code}  ddim {line}", flush=True)
            if done.code:
                sys.exit(done.err)
        for job in ("half", "half-default"):
            lose(folder / job, GONE)
    found = run_old(folder, None, False, False)
    promised(folder, found)
    write(folder / "expected.json", found)


def promised(folder: Path, found: Hashed) -> None:
    """What was gone on with must be what was made in one go, or the artefacts prove nothing."""
    pairs = {f"training/resume/{n}": run_contents(folder / f"{n}20") for n in ("run", "plain")}
    for name, whole in (pairs | {"jobs/job/half": contents(folder / "whole")}).items():
        for key, (sha, _) in hashed(whole).items():
            if key != "files" and found[f"{name}:{key}"][0] != sha:  # a resumed run has one more file for TensorBoard
                sys.exit(f"{name}:{key} is not what is made in one go")


def run_old(folder: Path, only: list[str] | None, cold: bool, keep: bool) -> Hashed:
    with working(cold, keep) as world:
        shutil.copytree(folder, world.folder, dirs_exist_ok=True)
        return gathered(OLD, only)


# -- the whole -------------------------------------------------------------------------------------------------------

GROUPS: dict[str, Callable[[], Iterator[Item]]] = {
    "help": help_items, "schedule": schedule_items, "sample": sample_items, "job": job_items, "encode": encode_items,
    "pictures": picture_items, "evaluate": evaluate_items, "tune": tune_items, "train": train_items,
    "golden": golden_items, "export": export_items, "api": api_items, "mistake": mistake_items,
}  # fmt: skip


@contextlib.contextmanager
def working(cold: bool, keep: bool, folder: Path | None = None) -> Iterator[World]:
    """A working folder with a cache of its own; that one, or a new one which is removed afterwards."""
    place = folder or Path(tempfile.mkdtemp(prefix="same-"))
    cache = tempfile.mkdtemp(prefix="same-cache-")
    os.environ["DDIM_CACHE"] = cache
    World.now = World(place.resolve(), cold)
    try:
        yield World.now
    finally:
        shutil.rmtree(cache, ignore_errors=True)
        if keep:
            print(f"kept {place}")
        elif folder is None:
            shutil.rmtree(place, ignore_errors=True)


def run_all(only: list[str] | None, cold: bool, keep: bool) -> Hashed:
    with working(cold, keep) as world:
        prepare(world.folder)
        return gathered(GROUPS, only)


def gathered(groups: Mapping[str, Callable[[], Iterator[Item]]], only: list[str] | None) -> Hashed:
    """Run the items group by group, telling each one's time."""
    found: Hashed = {}
    begun = time.perf_counter()
    for group, items in groups.items():
        if only is not None and group not in only:
            continue
        for name, act in items():
            start = time.perf_counter()
            values = act()
            full = name if name.startswith((f"{group}/", f"{group}:")) else f"{group}/{name}"
            found |= {f"{full}:{key}" if key else full: v for key, v in values.items()}
            now = time.perf_counter()
            print(f"{now - begun:6.1f} s  {name:<32} {now - start:5.2f} s  {len(values)} names", flush=True)
    print(f"{len(found)} names in {time.perf_counter() - begun:.0f} s")
    return found


def write(path: Path, found: Hashed) -> None:
    cpu = torch.backends.cpu.get_cpu_capability()
    document = {
        "about": {"python": sys.version.split()[0], "torch": torch.__version__, "cpu": cpu},
        "sha256": {name: sha for name, (sha, _) in found.items()},
        "text": {name: text for name, (_, text) in found.items()},
    }
    path.write_text(json.dumps(document, indent=0) + "\n")
    print(path)


def compare(path: Path, found: Hashed, groups: Iterable[str] | None) -> int:
    """Print every name that differs, is gone or is new, with the words beside it; 1 if there is any, else 0.

    A new flag in a command's help is told and not counted: what there was is as it was.
    """
    known = json.loads(path.read_text())
    kept = None if groups is None else tuple("mistake:" if g == "mistake" else f"{g}/" for g in groups)
    before = {n: sha for n, sha in known["sha256"].items() if kept is None or n.startswith(kept)}
    differing = [n for n in before if n in found and found[n][0] != before[n]]
    for name in differing:
        print(f"DIFFERS  {name}")
        tell(known["text"][name], found[name][1])
    gone, new = [n for n in before if n not in found], [n for n in found if n not in before]
    for name in gone:
        print(f"GONE     {name}: {known['text'][name][:200]!r}")
    for name in new:
        print(f"NEW      {name}: {found[name][1][:200]!r}")
    for name in (n for n in before if n.startswith("mistake:") and n in found and n not in differing):
        if known["text"][name] != found[name][1]:
            print(f"reworded {name}: {found[name][1]}")
    new = [n for n in new if not n.startswith("help/")]
    print(f"{len(before)} names: {len(differing)} differ, {len(gone)} gone, {len(new)} new")
    return int(bool(differing or gone or new))


def tell(old: str, new: str, most: int = 12) -> None:
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0))[2:]
    for line in lines[:most] or ["(the texts are alike: the difference is in the data or beyond what is shown)"]:
        print(f"         {line[:300]}")
    if len(lines) > most:
        print(f"         .. and {len(lines) - most} lines more")


def settle_environment() -> None:
    """Start anew under the environment that results depend on: libraries read it when they are loaded."""
    wanted = {k: v for k, v in os.environ.items() if k not in UNSET} | ENVIRON
    if source := os.environ.get("PYTHONPATH"):
        wanted["PYTHONPATH"] = os.pathsep.join(str(Path(p).resolve()) for p in source.split(os.pathsep) if p)
    if wanted != dict(os.environ):
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)
    torch.set_num_threads(1)


def preload() -> None:
    for name in PRELOADED:
        with contextlib.suppress(ImportError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    if any(name.split(".")[0] == "ddim" for name in sys.modules):
        sys.exit("a third-party package has imported ddim")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "check", "make-old", "old"))
    parser.add_argument("path", type=Path, help="OUT.json, or the folder of old artefacts")
    parser.add_argument("--only", help="groups, with commas")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    settle_environment()
    only, path = asked.only.split(",") if asked.only else None, asked.path.resolve()
    spec = importlib.util.find_spec("ddim")
    print(f"ddim is {spec.origin if spec else 'nowhere'}, torch {torch.__version__}", flush=True)
    if not asked.cold:
        preload()
    if asked.action == "make-old":
        make_old(path)
    elif asked.action == "old":
        sys.exit(compare(path / "expected.json", run_old(path, only, asked.cold, asked.keep), only))
    else:
        found = run_all(only, asked.cold, asked.keep)
        if asked.action == "check":
            sys.exit(compare(path, found, only))
        write(path, found)


if __name__ == "__main__":
    main()
