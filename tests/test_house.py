"""The house (docs/architecture.md): folders are the architecture, and this is the table that says how.

A rule takes a house and yields what breaks it, one line each. `test_the_house_keeps` runs all of them on the sources;
tests/test_house_rules.py breaks each one on purpose.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import house
import pytest
from house import House, Source

SRC = Path(__file__).parent.parent / "src" / "ddim"

MAY_IMPORT = {
    "refused": "",
    "stored": "refused",
    "process": "refused",
    "files": "refused stored",
    "pixels": "refused process files",
    "engine": "refused process files",
    "nets": "refused process files",
    "denoise": "refused process files",
    "metrics": "refused process files engine",
    "solve": "refused process files denoise",
    "data": "refused stored process files pixels",
    "checkpoints": "refused stored process files denoise pixels engine nets",
    "uses": "refused stored process files denoise solve",
    "model": "refused process files denoise pixels engine nets solve uses checkpoints",
    "jobs": "refused stored process files denoise pixels engine nets metrics solve data uses checkpoints model",
    "cli": "refused stored process files denoise pixels engine nets metrics solve data uses checkpoints model jobs",
    "studio": "refused process files denoise pixels engine nets metrics solve data uses checkpoints model jobs",
}
"""Folder -> the folders it may import, from the ground floor up. A file beside the folders counts as one."""

ONLY_IN = {"accelerate": "jobs", "diffusers": "nets checkpoints", "tyro": "cli", "tqdm": "cli", "ray": "jobs"}
"""Package from outside -> the folders that may import it."""

PURE = ("process", "denoise", "solve", "uses")
PURE_MAY_IMPORT = {"torch", "numpy", *sys.stdlib_module_names}

MOST_FLOORS = 9
MOST_ENTRIES = 20
MOST_LINES = 250
MOST_LINES_OF_A_FUNCTION = 40  # without its docstring
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
GLOBAL_RANDOMNESS = ("randn_like", "rand_like", "torch.randn(", "torch.rand(", "torch.randint(", "torch.randperm(",
                     "manual_seed(", ".cuda()", '.to("cuda")')  # fmt: skip
SEEDS_TORCH_ITSELF = {"nets"}  # initialisers and dropout read torch's global stream and take no other
BANNED_NAMES = {"prev", "prev_t", "alpha", "beta_prod", "alpha_prod_t", "final_alpha"}
MANY_BY_DESIGN = {"Command"}  # one in every module of cli/commands: the options it takes


def arrows(here: House) -> Iterator[str]:
    """A folder imports only what its row of the table names."""
    for folder, imported in here.folders.items():
        if folder not in MAY_IMPORT:
            yield f"{folder} has no row in the table"
        for other in sorted(imported - set(MAY_IMPORT.get(folder, "").split())):
            yield f"{folder} may not import {other}: {places(here, folder, other)}"


def faces(here: House) -> Iterator[str]:
    """Another folder is imported through its face; beside a module lie its neighbours, nothing deeper."""
    for source in here:
        own = source.package.split(".") if source.package else []
        for found in here.imports[source.name]:
            if found.relative:
                yield f"{at(source, found.line)}: relative import"
            theirs = found.target.split(".")
            shared = next((i for i, (a, b) in enumerate(zip(own, theirs, strict=False)) if a != b), len(own))
            if len(theirs[shared:]) > 1 and found.spelled:
                yield f"{at(source, found.line)}: ddim.{found.target} lies behind the face of {theirs[shared]}"


def circles(here: House) -> Iterator[str]:
    """No circle of modules inside a top folder; a face is a module."""
    for folder in here.folders:
        edges = {
            s.name: [i.target for i in here.imports[s.name] if i.target.split(".")[0] == folder]
            for s in here
            if s.folder == folder
        }
        yield from (f"circle: {' - '.join(circle)}" for circle in house.circles(edges))


def top_level(here: House) -> Iterator[str]:
    """The first look at the house shows no more than a newcomer can hold."""
    entries = [p.name for p in here.root.iterdir() if p.name != "__pycache__"]
    if len(entries) > MOST_ENTRIES:
        yield f"{len(entries)} entries at the top level, at most {MOST_ENTRIES}"


def outsiders(here: House) -> Iterator[str]:
    """Packages from outside stay in the folders that exist for them; the core needs torch and numpy alone."""
    for source in here:
        for package, line in packages(source):
            if source.folder in PURE and package not in PURE_MAY_IMPORT:
                yield f"{at(source, line)}: {source.folder} imports {package}, not only torch and numpy"
            if package in ONLY_IN and source.folder not in ONLY_IN[package].split():
                yield f"{at(source, line)}: {package} is imported outside {ONLY_IN[package]}"


def words_to_people(here: House) -> Iterator[str]:
    """Printing, and flags in messages and docstrings, belong to the command line."""
    for source in here:
        if source.folder == "cli":
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
                yield f"{at(source, node.lineno)}: prints"
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and (flag := FLAG.search(node.value)):
                yield f"{at(source, node.lineno)}: spells the flag {flag.group()}"


def names(here: House) -> Iterator[str]:
    """A name means one thing: a module is no function, a type has one home, two folders offer no two things."""
    types: dict[str, str] = {}
    offered: dict[str, str] = {}
    for source in here:
        for name, home in source.offers.items() if source.is_face and source.name else ():
            if f"{source.name}.{name}" in here.sources:
                yield f"{at(source)}: {name} is a module of this folder and something its face offers"
            if source.name == source.folder and offered.setdefault(name, home) != home:
                yield f"{at(source)}: {name} of {home} is also {name} of {offered[name]}"
        for name in defined(source):
            if name == source.name.rpartition(".")[2]:
                yield f"{at(source)}: is called like the {name} it holds"
            if re.match("[A-Z].*[a-z]", name) and types.setdefault(name, source.name) != source.name:
                yield f"{at(source)}: {name} is also the name of a type in {types[name]}"


def sizes(here: House) -> Iterator[str]:
    """Files and functions one can take in at a glance."""
    for source in here:
        if (lines := source.text.count("\n")) > MOST_LINES:
            yield f"{at(source)}: {lines} lines, at most {MOST_LINES}"
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef) and (lines := length(node)) > MOST_LINES_OF_A_FUNCTION:
                yield f"{at(source)}: {node.name} has {lines} lines, at most {MOST_LINES_OF_A_FUNCTION}"


def randomness(here: House) -> Iterator[str]:
    """Noise is a function of seed, purpose and step; no device is wired in."""
    for source in here:
        for banned in GLOBAL_RANDOMNESS:
            if banned in source.text and not (banned == "manual_seed(" and source.folder in SEEDS_TORCH_ITSELF):
                yield f"{at(source)}: uses {banned}"


def notation(here: House) -> Iterator[str]:
    """docs/notation.md: names that mean two things elsewhere are not used in the core."""
    for source in here:
        if source.folder in PURE:
            for node in ast.walk(source.tree):
                name = getattr(node, "id", getattr(node, "arg", getattr(node, "attr", getattr(node, "name", ""))))
                if name in BANNED_NAMES:
                    yield f"{at(source, getattr(node, 'lineno', 0))}: uses the name {name}"


RULES = (arrows, faces, circles, top_level, outsiders, words_to_people, names, sizes, randomness, notation)


def at(source: Source, line: int = 0) -> str:
    return f"{source.name or 'ddim'}{f':{line}' if line else ''}"


def places(here: House, folder: str, other: str) -> str:
    found = [at(s, i.line) for s in here if s.folder == folder for i in here.imports[s.name]
             if i.target.split(".")[0] == other]  # fmt: skip
    return ", ".join(found[:5])


def packages(source: Source) -> Iterator[tuple[str, int]]:
    """Top-level names of what a file imports from outside the house, with the line."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        else:
            continue
        yield from ((package, node.lineno) for name in names if (package := name.split(".")[0]) != "ddim")


def defined(source: Source) -> Iterator[str]:
    """Public functions, classes and capitalised aliases that a file defines at its top level."""
    for node in source.tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield from {node.name} - MANY_BY_DESIGN if not node.name.startswith("_") else ()
        elif isinstance(node, ast.Assign):
            yield from (t.id for t in node.targets if isinstance(t, ast.Name) and re.match("[A-Z].*[a-z]", t.id))


def length(node: ast.FunctionDef) -> int:
    """Lines of a function from `def` to its end, its docstring left out."""
    first = node.body[0]
    doc = (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(node) else 0
    return (node.end_lineno or 0) - node.lineno + 1 - doc


@pytest.fixture(scope="module")
def ours() -> House:
    return house.read(SRC)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule, ours):
    broken = list(rule(ours))
    assert not broken, "\n".join(broken)


def test_the_table_has_few_floors_and_stands_from_the_ground_up():
    rows = {folder: below.split() for folder, below in MAY_IMPORT.items()}
    floor = house.floors(rows)  # the longest way down; a circle is refused
    assert max(floor.values()) < MOST_FLOORS
    assert [floor[folder] for folder in rows] == sorted(floor.values())
    assert {below for row in rows.values() for below in row} <= set(rows)


def test_the_table_names_what_is_there(ours):
    assert set(ours.folders) == set(MAY_IMPORT) - {"studio"}, "studio is to come; the rest stands"
