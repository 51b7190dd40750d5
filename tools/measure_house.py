"""Measures a source tree as issue 12 asks: python tools/measure_house.py TREE [TREE ..], a Markdown column for each.

A tree is a checkout (`git worktree add`, or an archive unpacked); its `src/ddim` is read, and `ddim --help` run.
"""

import ast
import os
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import house
from house import House, Source

WRITERS = {"write_text", "write_bytes", "save", "save_file", "savefig", "savez", "savez_compressed"}
HELPS = 5  # the quickest of as many


def main(trees: list[str]) -> int:
    houses = [house.read(Path(tree) / "src" / "ddim") for tree in trees]
    print("| | " + " | ".join(trees) + " |\n|---|" + "---|" * len(trees))
    for name, measure in MEASURES.items():
        print(f"| {name} | " + " | ".join(str(measure(here)) for here in houses) + " |")
    return 0


def entries(here: House) -> int:
    return sum(path.name != "__pycache__" for path in here.root.iterdir())


def floors(here: House) -> int:
    """Along the longest way down; what stands in one circle shares a floor."""
    edges = {name: set(below) for name, below in here.folders.items()}
    home = {name: circle[0] for circle in house.circles(edges) for name in circle}
    merged: dict[str, set[str]] = {}
    for name, below in edges.items():
        merged.setdefault(home.get(name, name), set()).update(home.get(b, b) for b in below)
    return 1 + max(house.floors({name: below - {name} for name, below in merged.items()}).values())


def upward(here: House) -> int:
    """Arrows between entries of the top level that lie on a circle: of each circle one must point up."""
    home = {name: i for i, circle in enumerate(house.circles(here.folders)) for name in circle}
    return sum(a in home and home.get(a) == home.get(b) for a, below in here.folders.items() for b in below)


def circled(here: House) -> int:
    """Folders, the top one too, in which modules go in a circle."""
    packages = {source.package for source in here}
    return sum(bool(house.circles(inside(here, package))) for package in packages)


def inside(here: House, package: str) -> dict[str, set[str]]:
    """What lies directly in a folder (a folder inside counts as one, its face apart), and what imports what."""
    edges: dict[str, set[str]] = {}
    for source in here:
        a = node(source.name, package)
        for found in here.imports[source.name]:
            b = node(found.target, package)
            if a and b and a != b:
                edges.setdefault(a, set()).add(b)
                edges.setdefault(b, set())
    return edges


def node(name: str, package: str) -> str:
    """The module or folder of `package` that holds `name`; "" for what lies elsewhere, or is `ddim` itself."""
    if not package or name.startswith(f"{package}."):
        return name.removeprefix(f"{package}.").split(".")[0]
    return f"{package} (face)" if name == package else ""


def sizes(here: House) -> list[int]:
    return [source.text.count("\n") for source in here]


def arguments(here: House) -> str:
    """Of the public function or method with most of them."""
    found = [(count(n), f"`{n.name}` in {s.name}") for s in here for n in ast.walk(s.tree)
             if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]  # fmt: skip
    most, where = max(found)
    return f"{most} ({where})"


def count(function: ast.FunctionDef) -> int:
    args = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return len(args) - (args[:1] in (["self"], ["cls"]))


def duplicated(here: House) -> str:
    """Pairs of six equal lines or more, as the command `duplicates` counts them."""
    if shutil.which("duplicates") is None:
        return "-"
    command = ["duplicates", "--repo", str(here.root), "--most", "200", "--seconds", "120"]
    counted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "0" if counted.startswith("no ") else counted.split()[0]


def writes(here: House) -> int:
    """Calls that write a file by themselves: not in files.py, not by a function of it, not inside its `with`."""
    return sum(len(own_writes(source)) for source in here if source.name != "files")


def own_writes(source: Source) -> set[ast.Call]:
    theirs = {name for name, home in source.offers.items() if home == "files"}
    helped = {
        call
        for block in ast.walk(source.tree)
        if isinstance(block, ast.With) and any(called(item.context_expr) in theirs for item in block.items)
        for call in ast.walk(block)
    }
    calls = {n for n in ast.walk(source.tree) if isinstance(n, ast.Call) and is_write(n)}
    return {call for call in calls - helped if not (isinstance(call.func, ast.Name) and call.func.id in theirs)}


def called(node: ast.expr) -> str:
    function = node.func if isinstance(node, ast.Call) else node
    return getattr(function, "attr", getattr(function, "id", ""))


def is_write(call: ast.Call) -> bool:
    modes = [a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)]
    opened = called(call) == "open" and any(isinstance(m, str) and m[:1] in {"w", "x", "a"} for m in modes)
    return called(call) in WRITERS or opened


def renames(here: House) -> int:
    """Calls that put a file or folder in place by a rename, outside files.py: each a way of its own to write whole."""
    calls = [n for s in here if s.name != "files" for n in ast.walk(s.tree) if isinstance(n, ast.Call)]
    return sum(ast.unparse(call.func) in {"os.replace", "os.rename"} or called(call) == "rename" for call in calls)


def own_classes(here: House) -> Iterator[str]:
    return (n.name for s in here for n in ast.walk(s.tree) if isinstance(n, ast.ClassDef))


def asked(here: House) -> int:
    """isinstance(.., one of our own classes)."""
    ours = set(own_classes(here))
    return sum(bool(ours & kinds(n)) for s in here for n in ast.walk(s.tree) if isinstance(n, ast.Call))


def kinds(call: ast.Call) -> set[str]:
    if called(call) != "isinstance" or len(call.args) != 2:
        return set()
    return {getattr(n, "attr", getattr(n, "id", "")) for n in ast.walk(call.args[1])}


def in_cli(source: Source) -> bool:
    return source.folder == "cli"


def help_seconds(here: House) -> str:
    """User CPU time of `ddim --help`, the least of a few."""
    env = {**os.environ, "PYTHONPATH": str(here.root.parent)}
    spent = []
    for _ in range(HELPS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([sys.executable, "-m", "ddim", "--help"], env=env, check=True, capture_output=True)
        spent.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
    return f"{min(spent):.2f} s"


MEASURES: dict[str, Callable[[House], object]] = {
    "entries at the top level": entries,
    "floors": floors,
    "upward arrows (imports between entries that lie on a circle)": upward,
    "folders with circles": circled,
    "files": lambda here: len(sizes(here)),
    "lines": lambda here: sum(sizes(here)),
    "lines in `cli/`": lambda here: sum(s.text.count("\n") for s in here if in_cli(s)),
    "median file, lines": lambda here: round(statistics.median(sizes(here))),
    "largest file, lines": lambda here: max(sizes(here)),
    "classes": lambda here: len(list(own_classes(here))),
    "arguments of the largest public function": arguments,
    "duplicated six-line pairs": duplicated,
    "places that write files, not through `files`": writes,
    "places that put them in place by a rename of their own": renames,
    "`isinstance` on our own classes": asked,
    "`ddim --help`, user CPU": help_seconds,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
