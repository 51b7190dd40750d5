"""The report of an evaluation: CSV, JSON, and one HTML page that needs nothing beside it."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ddim.files import write_text
from ddim.jobs.evaluate.cells import Cell
from ddim.jobs.evaluate.measured import Made
from ddim.jobs.evaluate.scoring import Row
from ddim.pixels import grid, save_png

GRID_IMAGES, GRID_COLUMNS = 32, 8
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("solver", "solver", ""), ("eta", "eta", ""), ("spacing", "spacing", ""), ("S", "steps", "d"),
    ("NFE", "nfe", "g"), ("s/image", "seconds_per_image", ".3g"), ("{distance}", "distance", ".4g"),
    ("+-", "distance_std", ".2g"), ("behind best", "behind", ".2g"), ("+-", "behind_std", ".2g"),
    ("KID x1000", "kid", "kid"), ("IS", "inception_score", ".3g"),
    ("precision", "precision", ".3f"), ("recall", "recall", ".3f"), ("density", "density", ".3f"),
    ("coverage", "coverage", ".3f"), ("diversity", "diversity", ".4g"), ("class acc.", "class_accuracy", ".3f"),
    ("consistency", "consistency", ".3f"), ("RMS", "rms", ".3f"),
)  # fmt: skip
LEGEND = """S steps asked for, NFE network calls an image. {distance}: Frechet distance of features to the reference,
+- its spread over bootstrap resamples; two sets of real images of these sizes would show {bias:.3g} by chance (bias of
finite n), and the row "real, held out" shows what they do show. Behind best: the distance less the best row's, +- over
the same resamples of seeds in both rows, so that what they share drops out. KID is unbiased. Precision, density: are
images like real ones; recall and coverage: are all real ones represented. Diversity: mean distance between features.
Consistency, RMS: distance to the deterministic row of most calls, seed by seed; consistency 0 is the same image, 1 an
unrelated one. eta 1 is DDPM; sigma-hat is DDPM's larger noise (DDIM appendix D.3), sigma-learned the variance that
the network predicts."""


def write_report(
    out: Path,
    rows: Sequence[Row],
    floor: Row,
    made: Mapping[Cell, Made],
    stamp: Mapping[str, Any],
    answer: Sequence[str],
) -> Path:
    """Write report.csv, report.json, report.html and grids/ into `out`; returns the page.

    Args:
        rows: in the order of the table. floor: the held-out real images.
        made: the cells' images, for the grids.
        stamp: what the numbers depend on: n, seeds, reference, extractor, weights, version...
    """
    name = str(stamp["distance"])
    (out / "grids").mkdir(parents=True, exist_ok=True)
    for cell, own in made.items():
        save_png(out / "grids" / f"{_file_name(cell)}.png", _grid(own))
    document = {
        "stamp": dict(stamp),
        "answer": list(answer),
        "floor": floor.as_dict(),
        "rows": [r.as_dict() for r in rows],
    }
    write_text(out / "report.json", json.dumps(document, indent=1))
    write_text(out / "report.csv", _csv(rows, floor, stamp))
    page = out / "report.html"
    write_text(page, _page(rows, floor, made, stamp, answer, name))
    return page


def _csv(rows: Sequence[Row], floor: Row, stamp: Mapping[str, Any]) -> str:
    text = io.StringIO()
    names = list(Row.__dataclass_fields__)
    flat = {f"stamp_{k}": v if isinstance(v, str | int | float) else json.dumps(v) for k, v in stamp.items()}
    writer = csv.writer(text)
    writer.writerow([*names, *flat])
    for row in [*rows, floor]:
        values = row.as_dict()
        writer.writerow(
            [" ".join(map(str, v)) if isinstance(v := values[n], tuple) else v for n in names] + list(flat.values())
        )
    return text.getvalue()


def table_cells(row: Row) -> list[str]:
    """The row's numbers as text, in the order of `COLUMNS`."""
    return [_text(getattr(row, name), form) for _, name, form in COLUMNS]


def heads(name: str) -> list[str]:
    """The columns' heads, with the distance called by its right name."""
    return [head.format(distance=name) for head, _, _ in COLUMNS]


def _text(value: Any, form: str) -> str:
    if value is None:
        return ""
    if form == "kid":
        return f"{1000 * value:.3g}"
    return format(value, form)


def _grid(made: Made) -> Any:
    scale = max(1, 56 // made.pixels.shape[1])
    return grid(list(made.pixels[:GRID_IMAGES]), GRID_COLUMNS, scale=scale)


def _file_name(cell: Cell) -> str:
    return cell.name.replace(" ", "_").replace("=", "").replace("+", "p")


# -- the page ------------------------------------------------------------------------------------------


def _page(
    rows: Sequence[Row],
    floor: Row,
    made: Mapping[Cell, Made],
    stamp: Mapping[str, Any],
    answer: Sequence[str],
    name: str,
) -> str:
    best = min(r.distance for r in rows)
    body = [f"<h1>How many steps does {html.escape(str(stamp['model']))} need?</h1>"]
    body += [f"<p class='answer'>{html.escape(line)}</p>" for line in answer]
    body.append(_plots(rows, floor, name))
    body.append("<h2>All rows</h2>" + _table([*rows, floor], name, best))
    body.append(f"<p>{html.escape(LEGEND.format(distance=name, bias=floor.bias))}</p>")
    body.append("<h2>The same seeds in every row</h2><div class='grids'>")
    for cell, own in made.items():
        picture = io.BytesIO()
        _grid(own).save(picture, format="PNG")
        data = base64.b64encode(picture.getvalue()).decode()
        words = html.escape(cell.name)
        body.append(f"<figure><img src='data:image/png;base64,{data}'><figcaption>{words}</figcaption></figure>")
    body.append("</div><h2>What the numbers depend on</h2><table class='stamp'>")
    for key, value in stamp.items():
        text = value if isinstance(value, str) else json.dumps(value)
        body.append(f"<tr><th>{html.escape(key)}</th><td>{html.escape(text)}</td></tr>")
    body.append("</table>")
    head = (
        f"<meta charset='utf-8'><title>ddim evaluate: {html.escape(str(stamp['model']))}</title><style>{STYLE}</style>"
    )
    return f"<!doctype html><html lang='en'><head>{head}</head><body>{''.join(body)}</body></html>"


STYLE = """
body{font:15px/1.45 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#1a1a1a;background:#fff}
.answer{background:#eef4ea;border-left:4px solid #4a7a34;padding:.6em 1em}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13px}
td,th{padding:.2em .5em;text-align:right;border-bottom:1px solid #ddd}
.stamp td{text-align:left;word-break:break-all}.best{background:#eef4ea}.floor{font-style:italic}
.wide{overflow-x:auto;width:max-content;max-width:calc(100vw - 3em);margin-left:50%;transform:translateX(-50%)}
.wide td{white-space:nowrap}.plots{display:flex;flex-wrap:wrap}.plots svg{max-width:560px;height:auto}
.grids{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}figcaption{font-size:13px}
"""


def _table(rows: Sequence[Row], name: str, best: float) -> str:
    lines = ["<tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in heads(name)) + "</tr>"]
    for row in rows:
        kind = "floor" if row.steps is None else "best" if row.distance <= 1.05 * best else ""
        lines.append(f"<tr class='{kind}'>" + "".join(f"<td>{html.escape(t)}</td>" for t in table_cells(row)) + "</tr>")
    return f"<div class='wide'><table>{''.join(lines)}</table></div>"


def _plots(rows: Sequence[Row], floor: Row, name: str) -> str:
    pictures = [
        _plot(lambda ax: _against_nfe(ax, rows, "distance", name, floor)),
        _plot(lambda ax: _precision_recall(ax, rows, floor)),
    ]
    if any(r.consistency is not None for r in rows):
        pictures.append(_plot(lambda ax: _against_nfe(ax, rows, "consistency", "consistency (0: same image)", None)))
    if len({r.eta for r in rows if r.solver == "ddim"}) > 1:
        pictures.append(_plot(lambda ax: _diversity(ax, rows, floor)))
    return "<div class='plots'>" + "".join(pictures) + "</div>"


def _plot(draw: Callable[[Any], None]) -> str:
    """One picture as SVG, drawn without a display and without touching pyplot's state."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 4.4), layout="constrained")
    draw(figure.add_subplot())
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "ddim"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :]


def _series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that differ in steps only, by name, in the order of their calls."""
    groups: dict[str, list[Row]] = {}
    spacings = {r.spacing for r in rows}
    for row in rows:
        label = f"{row.solver} {'' if row.solver != 'ddim' else 'eta ' + row.eta}".strip()
        groups.setdefault(label if len(spacings) == 1 else f"{label} {row.spacing}", []).append(row)
    return {k: sorted(v, key=lambda r: r.nfe or 0.0) for k, v in groups.items()}


def _against_nfe(ax: Any, rows: Sequence[Row], field: str, label: str, floor: Row | None) -> None:
    for i, (name, group) in enumerate(_series(rows).items()):
        ax.plot([r.nfe for r in group], [getattr(r, field) for r in group], "osv^Dd"[i % 6] + "-", ms=4, label=name)
    if floor is not None:
        ax.axhline(floor.distance, color="black", ls=":", label="real, held out")
        ax.set_yscale("log")
    ax.set_xscale("log")
    calls = sorted({r.nfe for r in rows if r.nfe is not None})
    ax.set_xticks(calls, [f"{c:g}" for c in calls], fontsize=8)
    ax.set_xticks([], minor=True)
    ax.set(xlabel="network calls an image (NFE)", ylabel=label)
    ax.legend(fontsize=7)
    ax.grid(alpha=0.3)


def _precision_recall(ax: Any, rows: Sequence[Row], floor: Row) -> None:
    for i, (name, group) in enumerate(_series(rows).items()):
        ax.plot(
            [r.recall for r in group], [r.precision for r in group], "osv^Dd"[i % 6] + "-", ms=4, lw=0.7, label=name
        )
        ax.annotate(f"S={group[0].steps}", (group[0].recall, group[0].precision), fontsize=6)
    ax.plot([floor.recall], [floor.precision], "k*", ms=11, label="real, held out")
    ax.set(xlabel="recall", ylabel="precision")
    ax.legend(fontsize=7)
    ax.grid(alpha=0.3)


def _diversity(ax: Any, rows: Sequence[Row], floor: Row) -> None:
    own = [r for r in rows if r.solver == "ddim" and r.spacing == rows[0].spacing]
    etas = list(dict.fromkeys(r.eta for r in own))
    for steps in sorted({r.steps for r in own if r.steps is not None}):
        group = [r for r in own if r.steps == steps]
        ax.plot([etas.index(r.eta) for r in group], [r.diversity for r in group], "o-", ms=4, label=f"S = {steps}")
    ax.axhline(floor.diversity, color="black", ls=":", label="real, held out")
    ax.set_xticks(range(len(etas)), etas)
    ax.set(xlabel="eta", ylabel="diversity (mean distance between features)")
    ax.legend(fontsize=7)
    ax.grid(alpha=0.3)
