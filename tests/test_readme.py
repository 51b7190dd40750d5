"""The README tells the truth: its Python runs, its commands and files exist."""

import re
import shlex
from pathlib import Path

import pytest

from ddim.cli.argv import COMMANDS, MODULES
from ddim.cli.typed import flag_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", [text for language, text in BLOCKS if language == "python"])
def test_python_runs(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_it_opens_with_the_two_commands():
    first = BLOCKS[0][1]
    assert [line.split("#")[0].strip() for line in first.strip().splitlines()] == ["make demo", "make test"]
    targets = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in targets and "\ntest:" in targets


def test_every_command_and_flag_exists():
    from importlib import import_module

    lines = [line for _, text in BLOCKS for line in text.splitlines() if line.startswith("ddim ")]
    assert len(lines) > 5
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        assert words[0] in COMMANDS, line
        fields = import_module(f"ddim.cli.commands.{MODULES.get(words[0], words[0])}").Command.__dataclass_fields__
        for word in words[1:]:
            if word.startswith("--"):
                assert word in {flag_of(field) for field in fields}, f"{line}: {word}"


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target
