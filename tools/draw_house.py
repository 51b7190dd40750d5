"""Draws the house from its imports: docs/images/house.svg, and the table of imports in docs/architecture.md.

    python tools/draw_house.py            write both
    python tools/draw_house.py --check    exit 1 where one is not what the sources say

A folder stands on the floor above the highest one it imports. Arrows that follow from others are left out of the
picture (cli -> jobs -> files says that cli may stand on files); the table has them all. The picture is plain text, the
same on every machine.
"""

import ast
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import house

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PICTURE = ROOT / "docs" / "images" / "house.svg"
BEGIN, END = "<!-- imports: written by tools/draw_house.py -->", "<!-- /imports -->"

WIDTH, BOX, GAP, MARGIN = 1180, 268, 22, 20
LINE, HEAD, PAD, STOREY = 15, 22, 10, 54
LETTERS = 38  # of a line inside a box

STYLE = """
  text { font-family: Helvetica, Arial, sans-serif; fill: #1d2733 }
  .name { font-size: 16px; font-weight: bold } .says { font-size: 12px; fill: #46535f }
  .box { fill: #ffffff; stroke: #46607c; stroke-width: 1.4 } .floor { fill: #edf2f7 }
  .arrow { fill: none; stroke: #7b93ad; stroke-width: 1.4; marker-end: url(#tip) }
"""


def main(args: list[str]) -> int:
    here = house.read(ROOT / "src" / "ddim")
    wanted = {PICTURE: picture(here), PAGE: with_table(PAGE.read_text(), table(here))}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if "--check" in args:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the imports say: run python tools/draw_house.py")
        return bool(stale)
    for path in stale:
        path.write_text(wanted[path])
    return 0


def table(here: house.House) -> str:
    """Every folder, from the top floor down, with what it knows and all it imports."""
    floor = house.floors(here.folders)
    rows = ["| floor | folder | what it knows | imports |", "|---|---|---|---|"]
    for name in sorted(here.folders, key=lambda f: (-floor[f], f)):
        imported = " ".join(f"`{f}`" for f in sorted(here.folders[name], key=lambda f: (-floor[f], f)))
        rows.append(f"| {floor[name]} | `{name}` | {says(here, name)} | {imported} |")
    return "\n".join(rows)


def with_table(page: str, text: str) -> str:
    """The page with the table between its two marks."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{text}\n{END}", page, flags=re.DOTALL)


def says(here: house.House, folder: str) -> str:
    """The first sentence of a face: what the folder knows."""
    doc = (ast.get_docstring(here.sources[folder].tree) or "").split("\n\n")[0]
    sentence = re.split(r"(?<=[^.]\.)\s", " ".join(doc.split()))[0]
    return sentence.rstrip(".")


def needed(folders: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that follow from no others (the transitive reduction)."""

    def below(folder: str) -> set[str]:
        return folders[folder].union(*(below(f) for f in folders[folder]))

    return {folder: imported - set().union(*(below(f) for f in imported)) for folder, imported in folders.items()}


@dataclass
class Storey:
    """One floor of the picture: its boxes from left to right, and how many arrows pass each gap between them."""

    top: float
    height: float
    lefts: dict[str, float]
    passing: Counter[float] = field(default_factory=Counter)

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def passage(self, x: float) -> float:
        """Where an arrow to a lower floor passes near x: through a gap, beside those already there."""
        edges = sorted(self.lefts.values())
        gaps = [edges[0] - GAP / 2, *(left + BOX + GAP / 2 for left in edges)]
        gap = min(gaps, key=lambda g: abs(g - x))
        self.passing[gap] += 1
        return gap + 5 * (self.passing[gap] // 2) * (-1) ** self.passing[gap]


def picture(here: house.House) -> str:
    """The house as SVG: a storey for each floor, the ground floor below."""
    floor, arrows = house.floors(here.folders), needed(here.folders)
    storeys = laid_out(here, floor, arrows)
    paths = [arrow(a, b, arrows, storeys) for a in arrows for b in sorted(arrows[a], key=lambda f: (-floor[f], f))]
    size = f'width="{WIDTH}" height="{storeys[-1].bottom + MARGIN:g}"'
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    head = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>', f"<style>{STYLE}</style>",
            f'<defs>{tip}<path d="M0 0 L8 4 L0 8 z" fill="#7b93ad"/></marker></defs>',
            '<rect width="100%" height="100%" fill="#ffffff"/>']  # fmt: skip
    floors = [f'<rect class="floor" x="4" y="{s.top - 8:g}" width="{WIDTH - 8}" height="{s.height + 16:g}" rx="8"/>'
              for s in storeys]  # fmt: skip
    boxes = [line for storey in storeys for folder in storey.lefts for line in box(here, folder, storey)]
    return "\n".join([*head, *floors, *paths, *boxes, "</svg>", ""])


def laid_out(here: house.House, floor: Mapping[str, int], arrows: Mapping[str, set[str]]) -> list[Storey]:
    """From the top floor down; each folder near the middle of those that stand on it."""
    storeys: list[Storey] = []
    lefts: dict[str, float] = {}

    def middle(folder: str) -> float:
        above = [lefts[a] for a in lefts if folder in arrows[a]]
        return sum(above) / len(above) if above else WIDTH / 2

    y = float(MARGIN)
    for level in range(max(floor.values()), -1, -1):
        row = sorted((f for f in here.folders if floor[f] == level), key=lambda f: (middle(f), f))
        first = (WIDTH - len(row) * BOX - (len(row) - 1) * GAP) / 2
        places = {folder: first + i * (BOX + GAP) for i, folder in enumerate(row)}
        lefts |= places
        storeys.append(Storey(y, HEAD + 2 * PAD + LINE * max(len(lines(here, f)) for f in row), places))
        y = storeys[-1].bottom + STOREY
    return storeys


def lines(here: house.House, folder: str) -> list[str]:
    return textwrap.wrap(says(here, folder).replace("`", ""), LETTERS)


def box(here: house.House, folder: str, storey: Storey) -> Iterator[str]:
    x, y = storey.lefts[folder], storey.top
    yield f'<rect class="box" x="{x:g}" y="{y:g}" width="{BOX}" height="{storey.height:g}" rx="6"/>'
    yield f'<text class="name" x="{x + PAD:g}" y="{y + PAD + 14:g}">{escape(folder)}</text>'
    for i, text in enumerate(lines(here, folder)):
        yield f'<text class="says" x="{x + PAD:g}" y="{y + PAD + HEAD + 11 + i * LINE:g}">{escape(text)}</text>'


def arrow(a: str, b: str, arrows: Mapping[str, set[str]], storeys: list[Storey]) -> str:
    """From the foot of a to the head of b; through the gaps of the floors between."""
    lefts = {folder: left for storey in storeys for folder, left in storey.lefts.items()}
    upper, lower = (next(i for i, s in enumerate(storeys) if f in s.lefts) for f in (a, b))
    x = lefts[a] + BOX * share(b, arrows[a], lefts)
    end = lefts[b] + BOX * share(a, {f for f in arrows if b in arrows[f]}, lefts)
    path = f"M{x:g} {storeys[upper].bottom:g}"
    for i in range(upper + 1, lower + 1):
        ahead = end if i == lower else storeys[i].passage(x + (end - x) / (lower - i + 1))
        y1, y2 = storeys[i - 1].bottom, storeys[i].top
        path += f" C{x:g} {(y1 + y2) / 2:g} {ahead:g} {(y1 + y2) / 2:g} {ahead:g} {y2:g}"
        path += "" if i == lower else f" V{storeys[i].bottom:g}"
        x = ahead
    return f'<path class="arrow" d="{path}"/>'


def share(folder: str, among: set[str], lefts: Mapping[str, float]) -> float:
    """The place of one arrow among those at the same side of a box, in the order of their other ends."""
    row = sorted(among, key=lambda f: (lefts[f], f))
    return (row.index(folder) + 1) / (len(row) + 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
