"""Each option is declared once; help is words and costs no torch; the library's words become flags; bugs stay bugs."""

import ast
import dataclasses
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import ddim as package
from ddim.cli.argv import COMMANDS, command_of, in_flags, main
from ddim.cli.options import DEFAULT
from ddim.refused import Refused

CLI = Path(package.__file__).parent / "cli"
SHARED = [CLI / f"{name}.py" for name in ("options", "pictures", "steered", "ofprocess", "learning", "clustered")]
COMMAND_FILES = sorted(p for p in (CLI / "commands").glob("*.py") if p.name != "__init__.py")

OWN_MEANING = {
    "model": "or a teacher, and with --resume the run",
    "to": "steps of a student, or a format",
    "out": "what is written, and whether it may exist, is the command's own",
    "data": "of training; or for a check, as an option",
    "label": "a rule for seeds; two points; the data's own; the class to become",
    "steps": "left open where --tau or the encoding can say it; network calls of a bench",
    "eta": "one, a list, that of a table, or what the kind of edit has",
    "n": "of the data, not of seeds",
    "start": "the time of an encoding, or a teacher's steps (--from)",
    "seed": "of training, of ten latents, of one strip's noise",
    "seeds": "all of them, or one an edit",
    "solver": "one, a list, the one tuned for",
    "guidance": "that of the encoding unless given",
    "spacing": "a list",
    "batch_size": "of an optimizer step; or auto",
    "precision": "of training",
    "latents": "a file, or how many",
    "draws": "which times are trained on; dequantisations of an image",
    "compile": "when, or whether to measure it",
    "sigma_hat": "in place of --eta, or rows more",
    "sigma_learned": "in place of --eta, or rows more",
    "lr": "the preset's, or a student's",
    "method": "one, or a list",
    "reference": "steps, or images",
    "at": "a step of training, or a time",
    "fit": "of training: to --size, which is the images' own there",
    "size": "of training: of what is learnt",
    "skip_unreadable": "of training",
    "held_out": "of training: how many",
    "init": "of a run; of a student; of an autoencoder",
    "tau": "of a walk; those a student shall have",
}
"""Names that commands document by themselves although others do, and why the words cannot be shared."""


def documented(path):
    """(name, help) of every field of the classes of a file that has a text under it."""
    for cls in [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]:
        for field, below in zip(cls.body, cls.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                yield field.target.id, " ".join(ast.literal_eval(below.value).split())


def test_no_option_is_documented_twice():
    files = [*SHARED, *COMMAND_FILES]
    found = [(name, text) for path in files for name, text in documented(path)]
    assert len(found) > 100, "the reader of fields reads"
    texts = Counter(text for _, text in found)
    assert {text: n for text, n in texts.items() if n > 1} == {}
    names = Counter(name for name, _ in found)
    assert {name for name, n in names.items() if n > 1} == set(OWN_MEANING)


def test_every_option_of_every_command_has_help():
    texts = defaultdict(set)
    for path in [*SHARED, *COMMAND_FILES]:
        for name, _ in documented(path):
            texts[path.stem].add(name)
    for name in COMMANDS:
        command = command_of(name)
        told = set.union(*(texts[path.stem] for path in SHARED)) | texts[command.__module__.rpartition(".")[2]]
        assert {f.name for f in dataclasses.fields(command)} <= told, name


def test_commands_are_short_and_stay_outside_the_checkpoint():
    for path in COMMAND_FILES:
        text = path.read_text()
        assert text.count("\n") <= 120, path.name
        assert not re.search(r"\.checkpoint\.", text), path.name


def test_arguments_keep_their_places():
    places = {
        name: [f.name for f in dataclasses.fields(command_of(name)) if "Positional" in str(f.type)] for name in COMMANDS
    }
    assert places == {
        "train": ["data"], "sample": ["model"], "schedule": ["model"], "info": ["model"], "import": ["source", "out"],
        "export": ["model", "out"], "encode": ["model", "images"], "decode": ["model", "latents"],
        "reconstruct": ["model", "data"], "consistency": ["model"], "interpolate": ["model"],
        "edit": ["model", "image"], "evaluate": ["model", "data"], "tune": ["model", "data"], "bench": ["model"],
        "demo": ["model"], "measure": ["folder", "data"], "ema": ["trained"], "distil": ["model", "data"],
        "likelihood": ["model", "data"], "train-autoencoder": ["data"],
    }  # fmt: skip


def test_the_default_model_is_the_librarys():
    assert package.model.DEFAULT == DEFAULT
    optional = [n for n in COMMANDS if getattr(command_of(n), "model", None) == DEFAULT]
    assert optional == ["sample", "schedule", "info", "bench", "demo"]


def test_help_imports_nothing_that_takes_long():
    script = """
import contextlib, io, sys
from ddim.cli.argv import COMMANDS, main
for words in (["--help"], *([name, "--help"] for name in COMMANDS)):
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit):
        main(words)
    assert "usage: ddim" in said.getvalue(), words
    slow = {"torch", "numpy", "PIL", "diffusers", "accelerate", "matplotlib", "tqdm", "yaml"} & set(sys.modules)
    assert not slow, (words, slow)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "message", "said"),
    [
        ("evaluate", "lower `n` or give `held_out`", "lower --count or give --held-out"),
        ("evaluate", "`data` holds no image", "data holds no image"),
        (
            "sample",
            "`batch_size` must be at least 1; see `ddim.tau`",
            "--batch-size must be at least 1; see `ddim.tau`",
        ),
        ("schedule", "`batch_size` must be at least 1", "`batch_size` must be at least 1"),
        ("sample", "give it: `set` image_size=<side>", "give it: ddim import SOURCE OUT --set image_size=<side>"),
        ("import", "give it: `set` image_size=<side>", "give it: --set image_size=<side>"),
    ],
)
def test_the_librarys_parameters_become_the_flags_of_the_running_command(command, message, said):
    assert in_flags(message, command_of(command)) == said


def ended(capsys, monkeypatch, error):
    """How `ddim schedule` ends when its body raises."""

    def run(self):
        raise error

    monkeypatch.setattr("ddim.cli.commands.schedule.Command.run", run)
    with pytest.raises(SystemExit) as stop:
        main(["schedule"])
    return stop.value.code, capsys.readouterr().err


def test_a_refusal_and_a_missing_file_are_one_line(capsys, monkeypatch):
    assert ended(capsys, monkeypatch, Refused("`eta` is\n too large")) == (2, "ddim: --eta is too large\n")
    assert ended(capsys, monkeypatch, FileNotFoundError("no `eta` here")) == (2, "ddim: no `eta` here\n")
    code, err = ended(capsys, monkeypatch, MemoryError())
    assert code == 2 and err.startswith("ddim: out of memory; ")
    assert ended(capsys, monkeypatch, KeyboardInterrupt()) == (130, "ddim: interrupted\n")


@pytest.mark.parametrize("error", [ValueError("shapes differ"), TypeError("no"), RuntimeError("no"), KeyError("no")])
def test_a_bug_keeps_its_traceback(capsys, monkeypatch, error):
    with pytest.raises(type(error)) as bug:
        ended(capsys, monkeypatch, error)
    assert bug.value is error and capsys.readouterr().err == ""


def test_whoever_asks_sees_the_traceback_of_a_refusal_too(capsys, monkeypatch):
    monkeypatch.setenv("DDIM_TRACEBACK", "1")
    with pytest.raises(Refused):
        ended(capsys, monkeypatch, Refused("no"))
