"""Every command that writes: its words, how it goes on after it was stopped, and what its result is."""

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from words import CPU, DIGITS, FAST, HALVING, PIXELS

import ddim
from conftest import save_tiny
from ddim.checkpoints import save_checkpoint
from ddim.files import read_tensors

SHORT = [*DIGITS, "--max-steps", "3", "--batch-size", "2", "--log-every", "1", "--checkpoint-every", "1", *FAST]
CODED = [*HALVING, "--max-steps", "3", "--log-every", "1", "--checkpoint-every", "1"]


def world(home, maker):
    """What the commands read: a model, pictures, latents, a run, an autoencoder; each in a folder below `home`."""
    save_tiny(home / "model")
    save_calm(home / "calm")
    pictures = home / "pictures"
    pictures.mkdir()
    for i in range(24):
        levels = (np.arange(64).reshape(8, 8) * (3 + i) + 40 * i) % 256
        Image.fromarray(levels.astype(np.uint8)).save(pictures / f"p{i:02d}.png")
    assert maker("encode", "model", "pictures/p00.png", "--steps", "2", "--method", "naive", *CPU, "--out", "z") == 0
    assert maker("train", "pictures", *SHORT, "--out", "run") == 0
    assert maker("train-autoencoder", "pictures", *CODED, "--out", "ae") == 0
    return home


def save_calm(path):
    """A model that says v = 0, as of N(0, I): its flow takes a quarter of the time that any weights' takes."""
    model = ddim.load(save_tiny(path.with_name("any"), prediction="v"))
    torch.nn.init.zeros_(model.checkpoint.network.unet.conv_out.weight)
    save_checkpoint(path, model.checkpoint)
    shutil.rmtree(path.with_name("any"))


@dataclass(frozen=True)
class Command:
    """A command on OUT, which is "out" in its home.

    Attributes:
        name: its verb, and what tells it from others of that verb.
        words: its argv before --out; a folder of new results as a positional argument where `bare`.
        kept: names below OUT that may differ from run to run, or hold seconds.
        more: a file beside OUT that is its result, too.
    """

    name: str
    words: tuple[str, ...]
    bare: bool = False
    resumes: bool = False
    more: str | None = None
    parts: str | None = field(default=None)

    @property
    def verb(self):
        return self.name.split()[0]

    def argv(self, out="out"):
        return [self.verb, *self.words, *([out] if self.bare else ["--out", out])]

    def again(self, home, out="out"):
        """The words that go on with what is there, or begin anew; None where all is done."""
        place = Path(home) / out
        begun = {"distil": "state/recipe.json", "train": "state/*.pt", "train-autoencoder": "state/*.pt"}
        if list(place.glob(begun.get(self.verb, "no such"))):
            return [self.verb, "--resume", out]
        if not self.resumes and (place.is_file() or (place.is_dir() and any(place.iterdir()))):
            return None
        return self.argv(out)

    def progress(self, home, out="out"):
        """How far it is: it must never fall."""
        if self.verb in ("train", "train-autoencoder"):
            return newest(Path(home) / out / "state")
        if self.name == "distil":
            ended = len(list((Path(home) / out).glob("stages/*/ddim.json")))
            return 100 * ended + newest(Path(home) / out / "state" / f"stage-{ended}")
        return 0 if self.parts is None else len(list((Path(home) / out).glob(self.parts)))

    def result(self, home, out="out"):
        """Name -> what must be there, and the same however the command came to its end."""
        found, place = {}, Path(home) / out
        files = [place] if place.is_file() else [p for p in sorted(place.rglob("*")) if p.is_file()]
        for path in files:
            name = path.name if path == place else str(path.relative_to(place))
            if content := _kept(self.name, name, path):
                found[name] = content
        if self.more is not None:
            found[self.more] = (Path(home) / self.more).read_text()
        return found


def newest(folder):
    """The step of the newest checkpoint, which loads; 0 where there is none."""
    found = sorted(folder.glob("step-????????.pt"))
    for path in found[-1:]:
        torch.load(path, weights_only=True)
    return int(found[-1].stem[5:]) if found else 0


def _kept(command, name, path):
    told = ("report.html", "report.csv", "ddim.json", "log.jsonl")
    if name.startswith(("tensorboard/", "cells/")) or path.name in told:
        return _told(path.name, path)
    if name == "report.json":
        document = json.loads(path.read_text())
        return json.dumps([{k: v for k, v in row.items() if "seconds" not in k} for row in document["rows"]])
    if name == "state/recipe.json":
        return str({k: v for k, v in json.loads(path.read_text()).items() if k != "command"})
    if name.endswith(".pt"):
        state = torch.load(path, weights_only=True)
        return _hash(b"".join(v.numpy().tobytes() for v in state["network"].values())) + str(state["step"])
    if command == "encode":  # safetensors writes its words in any order
        tensors, words = read_tensors(path)
        return _hash(b"".join(tensors[k].numpy().tobytes() for k in sorted(tensors))) + str(sorted(words.items()))
    if path.suffix == ".png" and name.startswith(("distance", "reconstruct")):
        return "a plot"
    return _hash(path.read_bytes())


def _told(name, path):
    if name == "ddim.json":
        told = json.loads(path.read_text())
        (told.get("provenance") or {}).pop("command", None)
        return json.dumps(told)
    if name == "log.jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return json.dumps([[line["step"], line["loss"]] for line in lines])
    return None


def _hash(content):
    return hashlib.sha256(content).hexdigest()


COMMANDS = {
    c.name: c
    for c in (
        Command("train", ("pictures", *SHORT), resumes=True),
        Command("train in latents", ("pictures", "--autoencoder", "ae", *SHORT), resumes=True),
        Command("train-autoencoder", ("pictures", *CODED), resumes=True),
        Command("distil", ("model", "--to", "1", "--from", "2", "--updates", "2", "--batch-size", "2", "--made", "4",
                           "--log-every", "1", "--checkpoint-every", "1", "--preview-every", "0", *FAST), resumes=True),
        Command("ema", ("run", "--length", "0.1", *FAST)),
        Command("sample", ("model", "--seeds", "0-4", "--steps", "2", "--batch-size", "2", *FAST), resumes=True,
                parts="0*.png"),
        Command("evaluate", ("model", "pictures", "--steps", "2", "--eta", "0", "--no-sigma-hat", *PIXELS, *FAST),
                resumes=True, parts="cells/*.safetensors"),
        Command("likelihood", ("calm", "pictures", "--count", "4", "--batch-size", "2", "--probes", "2", "--tolerance",
                               "0.5", *CPU), resumes=True, parts="parts/*.json"),
        Command("encode", ("model", "pictures/p01.png", "pictures/p03.png", "--batch-size", "1", "--steps", "2",
                           "--method", "naive", *CPU)),
        Command("decode", ("model", "z", *CPU)),
        Command("edit", ("model", "pictures/p02.png", "--seeds", "0-1", "--steps", "3", *FAST)),
        Command("interpolate", ("model", "--between", "1", "2", "--frames", "3", "--steps", "2", *FAST)),
        Command("consistency", ("model", "--count", "2", "--steps", "2", "--reference", "4", *FAST)),
        Command("reconstruct", ("model", "pictures", "--count", "2", "--steps", "2", "--method", "naive", *CPU)),
        Command("measure", ("pictures", "pictures", *PIXELS, *CPU)),
        Command("tune", ("model", "pictures", "--steps", "2", "--solver", "ddim", "--latents", "2", "--long", "4",
                         "--candidates", "4", "--trials", "2", *FAST), more="model/tuned.json"),
        Command("import", ("model",), bare=True),
        Command("export", ("model",), bare=True),
    )
}  # fmt: skip
