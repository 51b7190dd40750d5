"""`make setup` after an interruption: the .venv of whoever was interrupted is completed, or made anew."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = f"""#!{sys.executable}
# Stands for python3: makes an environment whose python has a pip if it got that far, and says what it was asked.
import pathlib, sys
words, here = sys.argv[1:], pathlib.Path("log")
if words[0] == "-c":
    exec(words[1])
here.open("a").write(" ".join(words[1:3]) + "\\n")
if "--clear" not in words and pathlib.Path("stuck").exists():
    sys.exit("it cannot be completed")
inside = pathlib.Path(".venv/bin")
inside.mkdir(parents=True, exist_ok=True)
python = inside / "python"
python.write_text("#!/bin/sh\\ntest -e .venv/pip || {{ echo No module named pip >&2; exit 1; }}\\n")
python.chmod(0o755)
if pathlib.Path("interrupted").exists():
    sys.exit(1)
pathlib.Path(".venv/pip").touch()
"""


@pytest.fixture
def made(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "python3").write_text(PYTHON)
    (tmp_path / "python3").chmod(0o755)

    def make():
        (tmp_path / "log").write_text("")
        words = ["make", "setup", f"PYTHON={tmp_path / 'python3'}"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, (tmp_path / "log").read_text().split("\n")[:-1]

    return make


def test_an_interrupted_setup_is_completed(made, tmp_path):
    (tmp_path / "interrupted").touch()
    assert made()[0] != 0 and not (tmp_path / ".venv/.installed").exists()
    (tmp_path / "interrupted").unlink()
    (tmp_path / ".venv" / "mine").touch()
    assert made() == (0, ["venv .venv"])
    assert (tmp_path / ".venv" / "mine").exists()  # nothing that works is thrown away
    (tmp_path / ".venv/.installed").unlink()
    assert made() == (0, [])


def test_one_that_cannot_be_completed_is_made_anew(made, tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / "stuck").touch()
    assert made() == (0, ["venv .venv", "venv --clear"])
