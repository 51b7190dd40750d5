"""The documents tell the truth: names resolve, blocks that stand alone run, cited tests and files exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from test_house import MAY_IMPORT

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
CODE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
NAME = re.compile(r"\bddim(?:\.[A-Za-z_]\w*)+")
IN_A_FOLDER = re.compile(rf"(?:{'|'.join(MAY_IMPORT)})(?:\.[A-Za-z_]\w*)+")
FILES = {"ddim.json"}  # our file in a model folder, not a name


def prose(page):
    """A page without its code blocks."""
    return CODE.sub("", page.read_text())


def names(page):
    """Every `ddim.x.y` in backticks and in Python blocks, every `solve.x`; calls without their arguments."""
    ticked = re.findall(r"`([^`]+)`", prose(page))
    blocks = [code for language, code in CODE.findall(page.read_text()) if language == "python"]
    blocks = [] if page.name == "architecture.md" else blocks  # they name what they add: test_worked_example.py
    short = {f"ddim.{found.group()}" for text in ticked if (found := IN_A_FOLDER.match(text))}
    return sorted(({name for text in [*ticked, *blocks] for name in NAME.findall(text)} | short) - FILES)


def found(name):
    """What a dotted name leads to, as someone who wrote `import ddim` reaches it."""
    here = importlib.import_module("ddim")
    for part in name.split(".")[1:]:
        here = getattr(here, part)
    return here


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_names_work_as_written(page):
    wrong = []
    for name in names(page):
        try:
            found(name)
        except AttributeError:
            wrong.append(name)
    assert not wrong


def test_names_are_looked_for():
    assert {"ddim.uses.direction", "ddim.denoise.Guided"} <= {n for page in PAGES for n in names(page)}
    with pytest.raises(AttributeError):
        found("ddim.edit.direction")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose(page)):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_cited_files_and_tests_exist(page):
    for path, test in re.findall(r"`((?:tests|tools|benchmarks|docs|src)/[\w./-]+)(?:::(\w+))?`", prose(page)):
        assert (ROOT / path).exists(), path
        assert f"def {test}" in (ROOT / path).read_text() if test else True, f"{path}::{test}"


def test_every_formula_of_the_theory_is_numbered_once_and_in_order():
    numbers = re.findall(r" \((\d+)\)$", (ROOT / "docs" / "theory.md").read_text(), re.MULTILINE)
    assert [int(n) for n in numbers] == list(range(1, len(numbers) + 1)) and len(numbers) > 10


def test_sources_cite_texts_that_readers_have():
    """No "shared theory", no "design section": what a source cites is in this repository, or published."""
    private = re.compile(r"shared theory|design section|design\.md|(?<!docs/)theory\.md")
    for folder in ("src", "tests", "tools", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name != "test_docs.py":
                assert not private.search(path.read_text()), path


OUTSIDE = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("tools/*.py")])


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda p: str(p.relative_to(ROOT)))
def test_programs_outside_the_package_import_what_there_is(path):
    """Benchmarks and tools are not run by the tests; at least their imports of ddim lead somewhere."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ddim":
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.name not in ("README.md", "architecture.md")], ids=lambda p: p.name
)
def test_blocks_that_import_ddim_run(page, tmp_path, monkeypatch):
    """README's are run by test_readme.py, those of architecture.md by test_worked_example.py."""
    monkeypatch.chdir(tmp_path)
    for language, code in CODE.findall(page.read_text()):
        if language == "python" and re.search(r"^import .*\bddim\b", code, re.MULTILINE):
            exec(compile(code, page.name, "exec"), {})
