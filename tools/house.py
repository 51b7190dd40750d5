"""The house as it stands: which module of `ddim` imports which, read from the sources and never by importing them.

It knows Python's ways to import (at the top, inside functions, under TYPE_CHECKING, `import ddim` and then `ddim.x`,
`import_module("ddim.x")`), and no rule: rules are in tests/test_house.py, the picture is drawn by draw_house.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

TOP = "ddim"
LOADERS = ("import_module", "__import__")


class Import(NamedTuple):
    """One import: the module it reaches, dotted below `ddim` ("" is `ddim` itself), and the line.

    `spelled` is False where the name is put together at run time: then every module it may reach has an `Import`.
    """

    target: str
    line: int
    relative: bool = False
    spelled: bool = True


@dataclass(frozen=True)
class Source:
    """One file of the package. `name` is dotted below `ddim`; a face has the name of its folder."""

    name: str
    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def is_face(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def offers(self) -> dict[str, str]:
        """Names it imports at its top from modules of the house -> the module, dotted below `ddim`."""
        return dict(_offered(self.tree, self.name))

    @property
    def folder(self) -> str:
        """The top folder, "solve" for solve.walk; a file beside the folders counts as one; "" is `ddim` itself."""
        return self.name.split(".")[0]

    @property
    def package(self) -> str:
        """The folder it lies in, dotted; for a face the folder it is the face of."""
        return self.name if self.is_face else self.name.rpartition(".")[0]


@dataclass(frozen=True)
class House:
    """All sources of one package, by name."""

    sources: Mapping[str, Source]
    root: Path

    def __iter__(self) -> Iterator[Source]:
        return iter(self.sources.values())

    @cached_property
    def homes(self) -> dict[str, str]:
        """Names that `ddim` hands on -> the folder they come from, read off the tables and imports of its face."""
        return _homes(self.sources[""].tree) if "" in self.sources else {}

    @cached_property
    def imports(self) -> dict[str, list[Import]]:
        """What each module imports of the house."""
        return {source.name: sorted(_imports(source, self)) for source in self}

    @cached_property
    def folders(self) -> dict[str, set[str]]:
        """Top folder -> the other top folders it imports; without `ddim` itself, which only hands names on."""
        found: dict[str, set[str]] = {s.folder: set() for s in self if s.name and s.name != "__main__"}
        for source in self:
            if source.folder in found:
                found[source.folder] |= {i.target.split(".")[0] for i in self.imports[source.name] if i.target}
        return {folder: below - {folder} for folder, below in found.items()}

    def named(self, name: str, module: str) -> str:
        """Where `from ddim.module import name` leads: to the module, or to the one of that name inside it."""
        while module and module not in self.sources:
            module = module.rpartition(".")[0]
        below = f"{module}.{name}" if module else name
        if below in self.sources and (not module or name not in self.sources[module].offers):
            return below
        return module or self.homes.get(name, "")

    def resolved(self, dotted: str) -> str:
        """Where `ddim.dotted` leads, read from left to right: "solve.DDIM" to "solve", "DDIM" to its home."""
        found = ""
        for part in filter(None, dotted.split(".")):
            below = self.named(part, found)
            if below == found:
                break
            found = below
        return found


def read(root: Path) -> House:
    """Every Python file below `root`, the folder of the package."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Source(name, path, path.read_text())
    return House(found, root)


def floors(folders: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """How many folders lie below each, along the longest way down.

    Raises:
        ValueError: the folders go in a circle.
    """
    known: dict[str, int] = {}

    def floor(folder: str, above: tuple[str, ...]) -> int:
        if folder in above:
            raise ValueError(f"a circle: {' -> '.join([*above[above.index(folder) :], folder])}")
        if folder not in known:
            known[folder] = max((floor(f, (*above, folder)) + 1 for f in folders.get(folder, ())), default=0)
        return known[folder]

    for folder in folders:
        floor(folder, ())
    return known


def circles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another (a node that reaches itself is one), each sorted."""
    reach = {node: _reached(node, edges) for node in edges}
    groups = {tuple(sorted(m for m in reach[n] if n in reach.get(m, ()))) for n in reach if n in reach[n]}
    return [list(group) for group in sorted(groups)]


def _reached(node: str, edges: Mapping[str, Iterable[str]]) -> set[str]:
    found: set[str] = set()
    ahead = list(edges.get(node, ()))
    while ahead:
        if (here := ahead.pop()) not in found:
            found.add(here)
            ahead += edges.get(here, ())
    return found


def _offered(tree: ast.Module, own: str) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{TOP}."):
            home = (node.module or "").removeprefix(f"{TOP}.")
            yield from ((a.asname or a.name, home) for a in node.names if home != own)


def _homes(face: ast.Module) -> dict[str, str]:
    found = dict(_offered(face, ""))
    for node in face.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in found:
            found |= {t.id: found[node.value.id] for t in node.targets if isinstance(t, ast.Name)}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            found |= _table(node.value)
    return found


def _table(node: ast.Dict) -> dict[str, str]:
    """{"solve": ("DDIM", ..)} as DDIM -> solve; nothing of a table of another kind."""
    try:
        table = ast.literal_eval(node)
    except ValueError:
        return {}
    return {name: home for home, names in table.items() if isinstance(names, tuple) for name in names}


def _imports(source: Source, house: House) -> Iterator[Import]:
    bound: dict[str, str] = {}  # names that stand for a module of the house -> that module, dotted
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom):
            for alias, module in _from(node, source):
                target = house.named(alias.name, module)
                if target.endswith(f".{alias.name}") or target == alias.name:
                    bound[alias.asname or alias.name] = target
                yield Import(target, node.lineno, relative=bool(node.level))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == TOP:
                    below = alias.name.removeprefix(TOP).removeprefix(".")
                    bound[alias.asname or TOP] = below if alias.asname else ""
                    if below:
                        yield Import(house.resolved(below), node.lineno)
        elif isinstance(node, ast.Call):
            yield from _loaded(node, house)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and (dotted := _dotted(node, bound)):
            yield Import(house.resolved(dotted), node.lineno)


def _from(node: ast.ImportFrom, source: Source) -> Iterator[tuple[ast.alias, str]]:
    """Each name with the module it is asked of, dotted below `ddim`; nothing from outside."""
    if node.level:
        parts = source.package.split(".")
        module = ".".join(filter(None, [*parts[: len(parts) - node.level + 1], node.module or ""]))
    elif node.module and node.module.split(".")[0] == TOP:
        module = node.module.removeprefix(TOP).removeprefix(".")
    else:
        return
    yield from ((alias, module) for alias in node.names)


def _loaded(node: ast.Call, house: House) -> Iterator[Import]:
    """`import_module("ddim.x")`; of an f-string, all modules that begin as it does before the first brace."""
    called = getattr(node.func, "attr", getattr(node.func, "id", ""))
    if called not in LOADERS or not node.args:
        return
    whole = not isinstance(node.args[0], ast.JoinedStr)
    first = node.args[0] if whole else node.args[0].values[0]
    if isinstance(first, ast.Constant) and str(first.value).startswith(f"{TOP}."):
        start = first.value.removeprefix(f"{TOP}.")
        reached = [house.resolved(start)] if whole else [name for name in house.sources if name.startswith(start)]
        yield from (Import(name, node.lineno, spelled=whole) for name in reached)


def _dotted(node: ast.Attribute, bound: Mapping[str, str]) -> str:
    """`ddim.solve.DDIM` below a name bound to the house as "solve.DDIM"; "" for any other attribute."""
    parts: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    if not isinstance(inner, ast.Name) or inner.id not in bound:
        return ""
    return ".".join(filter(None, [bound[inner.id], *reversed(parts)]))
