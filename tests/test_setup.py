"""`make setup` after an interruption: the .venv of whoever was interrupted is completed, or made anew."""

import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
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


BACKEND = """
import zipfile
def wheel(folder, name):
    with zipfile.ZipFile(f"{folder}/{name}-0-py3-none-any.whl", "w") as out:
        about = f"{name}-0.dist-info"
        out.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 0\\nProvides-Extra: dev\\n")
        out.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        out.writestr(f"{about}/RECORD", "")
    return f"{name}-0-py3-none-any.whl"
def build_editable(folder, settings=None, metadata=None):
    return wheel(folder, "ddim")
"""
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "ddim"
version = "0"
"""


@pytest.mark.faults
@pytest.mark.parametrize("moment", [0.02 * 1.5**k for k in range(16)])
def test_killed_at_any_moment_it_is_completed(tmp_path, moment):
    """The real venv and the real pip, on packages that hold nothing: then the same command makes all of it."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "backend.py").write_text(BACKEND)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    for name in ("constraints.txt", "requirements.lock"):
        (tmp_path / name).touch()
    runpy.run_path(str(tmp_path / "backend.py"))["wheel"](tmp_path, "torch")
    words = ["make", "setup", f"PYTHON={sys.executable}"]
    env = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    setup = subprocess.Popen(words, cwd=tmp_path, env=env, start_new_session=True, stderr=subprocess.DEVNULL)
    time.sleep(moment)
    os.killpg(setup.pid, signal.SIGKILL)
    setup.wait()
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    asked = "from importlib.metadata import version; print(version('torch'), version('ddim'))"
    python = tmp_path / ".venv/bin/python"
    assert subprocess.check_output([python, "-c", asked], text=True).split() == ["0", "0"]
