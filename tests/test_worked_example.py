"""docs/architecture.md adds a solver, a wrapper and a checkpoint family; here its blocks are applied to a copy of the
house, each as one new file and its registry line, and run. The copy must keep the rules of the house as well as before.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import house
import pytest

from test_house import RULES

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PARTS = dict(re.findall(r"^### (A .*?)\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE))


def blocks(part: str) -> tuple[str, str, str]:
    """The new file, the registry line, the use: the three blocks of one part."""
    new, line, use = re.findall(r"```(?:python|diff)\n(.*?)```", PARTS[part], re.DOTALL)
    return new, line, use


def place(block: str, copy: Path) -> tuple[Path, str]:
    """Where a block belongs, by its first line, and the rest of it."""
    first, rest = block.split("\n", 1)
    return copy / first.removeprefix("# src/"), rest


def patched(text: str, diff: str) -> str:
    """text with a line behind each "+", after the last line that was named; "-" takes one out."""
    at = -1
    lines = text.split("\n")
    for line in diff.rstrip("\n").split("\n"):
        sign, words = line[0], line[1:]
        if sign == "+":
            at += 1
            lines.insert(at, words)
            continue
        assert lines.count(words) == 1, f"docs/architecture.md names a line that is not there (once): {words}"
        at = lines.index(words)
        if sign == "-":
            del lines[at]
            at -= 1
    return "\n".join(lines)


def used(code: str, copy: Path) -> subprocess.CompletedProcess[str]:
    """The code, run where `ddim` is the copy."""
    env = {**os.environ, "PYTHONPATH": str(copy)}
    return subprocess.run([sys.executable, "-c", code], cwd=copy.parent, env=env, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "bundled", "*.egg-info")
    )
    return tmp_path / "src"


@pytest.mark.parametrize("part", PARTS)
def test_one_new_file_and_one_registry_line(part, copy):
    new, line, use = blocks(part)
    path, text = place(new, copy)
    assert not path.exists()
    path.write_text(text)
    path, diff = place(line, copy)
    path.write_text(patched(path.read_text(), diff))
    run = used(use, copy)
    assert run.returncode == 0, run.stderr
    before, after = house.read(ROOT / "src" / "ddim"), house.read(copy / "ddim")
    for rule in RULES:
        assert len(list(rule(after))) == len(list(rule(before))), list(rule(after))


def test_the_page_adds_three_things():
    assert list(PARTS) == ["A solver", "A wrapper", "A checkpoint family"]


def test_without_its_registry_line_an_addition_is_not_found(copy):
    new, _, use = blocks("A solver")
    path, text = place(new, copy)
    path.write_text(text)
    run = used(use, copy)
    assert run.returncode != 0 and "unknown solver 'halved'" in run.stderr


def test_patched():
    assert patched("a\nb\nc", " a\n+x\n-c\n+y") == "a\nx\nb\ny"
    with pytest.raises(AssertionError, match="not there"):
        patched("a\nb", " z\n+x")
