"""Words of argv: junk for every flag of every command, settings in YAML, places that cannot be written to."""

import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from arena import Case
from junk import ESC, put
from words import CPU, FAST, HALVING, ONE, PIXELS

WORDS = [
    "", "nan", "inf", "-inf", "-1", "0", "0.5", "1e30", "1e400", "9" * 20, "9" * 5000, "x" * 10_000, ESC, "../..",
    "a,b", ",", "None", "1-100000000", "100000x100000", "1000000000", "0x0", "½", "٣", "\udcff", "[1", "{}", "a/b", ".",
    "/dev/null", "/dev/zero", "--out", "cuda:99", "meta", "hpu",
]  # fmt: skip
WORK = {"repeats", "max_steps", "trials", "latents", "resample"}  # who asks for so much of it is not wrong
LATENT = "train in latents"
LEFT_OUT = {"demo"}  # a thousand steps of DDPM each time


def flag_cases(root: Path) -> Iterator[Case]:
    """Each flag of each command with each junk, all else as it should be."""
    from ddim.cli.argv import COMMANDS, command_of
    from ddim.cli.typed import flag_of

    for name in (*COMMANDS, LATENT):
        if name in LEFT_OUT:
            continue
        verb = name.split()[0]
        for field in dataclasses.fields(command_of(verb)):
            positional = "Positional" in str(field.type)
            for word in WORDS:
                if field.name in WORK and word == "1000000000":
                    continue
                given, flag = words_of(name, root), flag_of(field.name)
                argv = given.with_positional(field.name, word) if positional else given.with_flag(flag, word)
                yield Case(f"word {name} {field.name} {word[:30]!a}", lambda here, argv=argv: argv, True)
        for i, words in enumerate(([], ["--no-such"], ["a"] * 300, ["--help", ESC], [ESC], ["-"], ["--"])):
            yield Case(f"words {name} {i}", lambda here, argv=[verb, *words]: argv)
    for i, argv in enumerate(([ESC], ["x" * 9999], ["-v"], ["--version"], [])):
        yield Case(f"no command {i}", lambda here, argv=argv: argv)


@dataclasses.dataclass
class Words:
    """A command that works, as its positional words and its flags."""

    verb: str
    positional: dict[str, str]
    flags: list[str]

    def with_positional(self, field: str, word: str) -> list[str]:
        return [self.verb, *{**self.positional, field: word}.values(), *self.flags]

    def with_flag(self, flag: str, word: str) -> list[str]:
        at = self.flags.index(flag) if flag in self.flags else len(self.flags)
        return [self.verb, *self.positional.values(), *self.flags[:at], flag, word, *self.flags[at + 2 :]]


def words_of(name: str, root: Path) -> Words:
    """The smallest run of a command."""
    model, data, z = str(root / "model"), str(root / "pictures"), str(root / "z.safetensors")
    image = str(root / "pictures" / "a" / "01.png")
    made, two = ["--out", "made"], ["--steps", "2", *FAST, "--out", "made"]
    once = [*made, "--max-steps", "1", "--batch-size", "2", "--preview-every", "0", *FAST]
    known: dict[str, tuple[dict[str, str], list[str]]] = {
        "train": ({"data": data}, once),
        LATENT: ({"data": data}, [*once, "--autoencoder", str(root / "ae")]),
        "train-autoencoder": ({"data": data}, [*made, "--max-steps", "1", *HALVING]),
        "sample": ({"model": model}, ONE),
        "schedule": ({"model": model}, ["--steps", "2"]),
        "info": ({"model": model}, []),
        "import": ({"source": model, "out": "made"}, []),
        "export": ({"out": "made", "model": model}, []),
        "encode": ({"model": model, "images": image}, ["--out", "z.safetensors", "--steps", "2", *FAST]),
        "decode": ({"model": model, "latents": z}, [*made, *FAST]),
        "reconstruct": ({"model": model, "data": data}, [*two, "--count", "1"]),
        "consistency": ({"model": model}, [*two, "--count", "2", "--reference", "3"]),
        "interpolate": ({"model": model}, [*two, "--between", "1", "2", "--frames", "2", "--animation", "none"]),
        "edit": ({"model": model, "image": image}, [*two, "--seeds", "0"]),
        "evaluate": ({"model": model, "data": data}, [*made, "--steps", "1", "--eta", "0", *PIXELS, *FAST]),
        "measure": ({"folder": data, "data": data}, [*made, *PIXELS, *CPU]),
        "tune": ({"model": model, "data": data}, ["--out", "tau.json", "--no-save", "--steps", "2", "--latents", "2",
                                                  "--long", "3", "--candidates", "3", "--trials", "0", *FAST]),
        "bench": ({"model": model}, ["--steps", "1", "--repeats", "1", "--batch-size", "1", *CPU]),
        "likelihood": ({"model": model, "data": data}, [*made, "--count", "2", "--probes", "2", "--tolerance", "0.5",
                                                        *CPU]),
        "distil": ({"model": model}, [*made, "--to", "1", "--from", "2", "--updates", "1", "--made", "8", *CPU]),
        "ema": ({"trained": str(root / "run")}, [*made, "--length", "0.1", *FAST]),
    }  # fmt: skip
    positional, flags = known.get(name, ({}, []))
    return Words(name.split()[0], positional, flags)


# -- places ------------------------------------------------------------------------------------------------------


PLACES = {
    "below a file": "file/x", "a file": "file", "below /dev/null": "/dev/null/x", "/dev/null": "/dev/null",
    "/proc": "/proc/nope/x", "/dev/full": "/dev/full", "long": "n" * 300, "long way": "/".join(["d"] * 3000),
    "escape": ESC, "full folder": "full", "link to itself": "loop", "link to nothing": "dangling", "fifo": "pipe",
    "not text": "\udcff", "nothing": "", "dot": ".", "up": "..", "trailing": "made/", "flag": "-x",
    "the model": "TEMPLATES/model", "the data": "TEMPLATES/pictures/x",
}  # fmt: skip


def place_cases(root: Path) -> Iterator[Case]:
    """Every command that writes, to every place it cannot write to."""
    writers = ("train", LATENT, "train-autoencoder", "ema", "sample", "import", "export", "encode", "decode",
               "reconstruct", "consistency", "interpolate", "edit",
               "evaluate", "measure", "tune", "likelihood", "distil")  # fmt: skip
    for name in writers:
        for kind, place in PLACES.items():

            def make(here: Path, name: str = name, place: str = place) -> list[str]:
                put(here / "file", "a file")
                put(here / "full" / "something", "else")
                (here / "loop").symlink_to("loop")
                (here / "dangling").symlink_to(here / "no" / "where")
                os.mkfifo(here / "pipe")
                words, at = words_of(name, root), place.replace("TEMPLATES", str(root))
                return words.with_positional("out", at) if "out" in words.positional else words.with_flag("--out", at)

            yield Case(f"place {name} {kind}", make, kind in ("escape", "not text", "trailing", "long way"))


# -- settings ----------------------------------------------------------------------------------------------------


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))
YAML: dict[str, str | bytes] = {
    "bomb": BOMB, "within itself": "a: &a [*a]\n", "mapping in itself": "&a {b: *a}\n", "deep": "[" * 5000 + "]" * 5000,
    "deep mapping": "{a: " * 3000 + "1" + "}" * 3000, "code": "!!python/object/apply:os.system ['touch canary']\n",
    "name": "!!python/name:os.system\n", "new": "!!python/object/new:os.system ['touch canary']", "tag": "!x 1\n",
    "list": "- 1\n- 2\n", "word": "hello\n", "empty": "", "number": "5", "bytes": bytes(range(256)),
    "tab": "a:\n\t- b\n", "date": "seed: 2020-99-99\n", "long": "a" * 100_000, "digits": f"seed: {'1' * 5000}\n",
    "binary": "seed: !!binary aGk=\n", "two": "a: 1\n---\nb: 2\n", "key": "? [1, 2]\n: 3\n",
    "key of mapping": "? {a: 1}\n: 2\n", "null key": "~: 1\n", "set": "seed: !!set {a, b}\n",
    "escape": f"'{ESC}': 1\n".replace("\x1b", "\\e"), "escaped": '"\\e[31m": "\\e[0m"\n',
    "merge": "a: &a {x: 1}\nb:\n  <<: *a\n", "merge bomb": "a: &a {x: 1}\n" + "b:\n" + "  <<: *a\n" * 50,
    "infinite": "seed: .inf\n", "NaN": "eta: .nan\n", "nested": "seed: {a: {b: 1}}\n", "listed": "seed: [1, [2]]\n",
    "help": "help: true\n", "config": "config: it\n", "unknown": "no-such: 1\n", "out": "out: /dev/null/x\n",
    "null": "out: null\n", "true": "n: true\n", "steps": "steps: [1, 2]\n",
}  # fmt: skip


def yaml_cases(root: Path) -> Iterator[Case]:
    """--config of commands, and settings of checkpoints."""
    ckpt = str(Path(__file__).parent.parent / "data" / "golden" / "ermongroup" / "plain" / "model-790000.ckpt")
    uses: dict[str, list[str]] = {
        "sample": ["sample", str(root / "model"), "--config", "it", *ONE],
        "train": ["train", str(root / "pictures"), "--config=it", "--out", "made", "--max-steps", "1", *CPU],
        "import": ["import", ckpt, "made", "--config", "it"],
        "info": ["info", str(root / "model"), "--config", "it"],
        "openai": ["info", ckpt, "--family", "openai", "--config", "it"],
    }
    for kind, content in YAML.items():
        for name, argv in uses.items():
            yield Case(f"yaml {name} {kind}", _with(content, argv), name in ("sample", "train"))
    for kind, value in {k: v for k, v in YAML.items() if isinstance(v, str) and "\0" not in v}.items():
        argv = ["import", ckpt, "made", "--set", f"diffusion.timesteps={value[:90_000]}"]
        yield Case(f"yaml set {kind}", lambda here, argv=argv: argv)
    for kind in ("fifo", "folder", "/dev/zero", "huge", "missing"):

        def make(here: Path, kind: str = kind) -> list[str]:
            {
                "fifo": lambda p: os.mkfifo(p),
                "folder": lambda p: p.mkdir(),
                "/dev/zero": lambda p: p.symlink_to("/dev/zero"),
                "huge": lambda p: _hole(p, 2**33),
                "missing": lambda p: None,
            }[kind](here / "it")
            return random.Random(kind).choice(list(uses.values()))

        for i in range(2):
            yield Case(f"yaml file {kind} {i}", make)


def _hole(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def _with(content: str | bytes, argv: list[str]) -> Callable[[Path], list[str]]:
    def make(here: Path) -> list[str]:
        put(here / "it", content)
        return argv

    return make
