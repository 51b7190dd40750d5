"""results/*.json -> results/README.md (the table) and results/benchmarks.png (the picture).

`python benchmarks/plot.py [--quick]`; with --quick it reads and writes out/benchmarks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
from common import folder, options, parser

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Result = dict[str, Any]
BASE, FP32, HALF = "#8a8f98", "#2f6db3", "#d9822b"
NAMES = ("sampling", "peers", "training", "curves", "scaling", "gpu")


def results(where: Path) -> dict[str, Result]:
    return {n: json.loads((where / f"{n}.json").read_text()) for n in NAMES if (where / f"{n}.json").exists()}


def speedups(found: dict[str, Result]) -> list[tuple[str, str, dict[str, float]]]:
    """(task, what / baseline, ratio) of every comparison."""
    rows = []
    for name, result in found.items():
        for row in [*result.get("rows", []), *result.get("training", [])]:
            job = "training" if "preset" in row else "sampling"
            task = ("GPU " if name == "gpu" else "") + f"{job} {row.get('preset', '35.7M')}, batch {row['batch']}"
            rows += [(task, pair, ratio) for pair, ratio in row.get("speedup", {}).items()]
    return rows


def bars(axis: Any, rows: list[tuple[str, str, dict[str, float]]]) -> None:
    labels, y, last = [], [], None
    for task, _pair, _ratio in rows:
        y.append((y[-1] + (1.0 if task == last else 1.8)) if y else 0.0)
        last = task
    for place, (task, pair, r) in zip(y, rows, strict=True):
        colour = HALF if "bf16" in pair.split(" / ")[0] else FP32
        error = [[r["median"] - r["min"]], [r["max"] - r["median"]]]
        axis.barh(place, r["median"], color=colour, height=0.8, xerr=error, error_kw={"lw": 1, "capsize": 2})
        axis.text(max(r["max"], 0) + 0.04, place, f"{r['median']:.2f}", va="center", fontsize=7)
        labels.append(f"{pair}  ({task})")
    axis.set_yticks(y, labels, fontsize=7)
    axis.invert_yaxis()
    axis.axvline(1, color=BASE, lw=1)
    axis.set_xlim(0, 1.12 * max(r["max"] for _, _, r in rows) + 0.1)
    axis.set_title("times as fast as the peer: median and range of side-by-side pairs\n"
                   "blue fp32, orange bf16", fontsize=9)  # fmt: skip


def curves(axis: Any, result: Result) -> None:
    styles = {"ddim fp32": (FP32, "-"), "ddim bf16": (HALF, "-"), "diffusers recipe fp32": ("black", ":")}
    for run in result["runs"]:
        colour, line = styles[run["trainer"]]
        xs, ys = zip(*run["points"], strict=True)
        label = run["trainer"] if run["seed"] == 0 else None
        axis.plot(xs, ys, line, color=colour, lw=1.2, label=label, alpha=0.8)
    axis.set_xlabel("images seen", fontsize=8)
    axis.set_ylim(0, 1.05)
    axis.set_title(f"held-out eps loss, digits, lr {result['lr']:g}, a line a seed", fontsize=9)
    axis.legend(fontsize=7)


def scaling(time: Any, memory: Any, result: Result) -> None:
    for key, x, colour in (("by_n", "n", FP32), ("by_S", "S", HALF)):
        rows, fit = result[key], result["fits"][x]
        xs = [r[x] for r in rows]
        other = f"S = {rows[0]['S']}" if x == "n" else f"n = {rows[0]['n']}"
        time.plot(xs, [r["seconds"]["median"] for r in rows], "o", color=colour, ms=4, label=f"against {x}, {other}")
        time.plot(xs, [fit["fixed_seconds"] + fit[f"seconds_a_{x}"] * v for v in xs], "-", color=colour, lw=1)
        memory.plot(xs, [r["rss_mib"] for r in rows], "o-", color=colour, ms=4, lw=1, label=f"against {x}, {other}")
    for axis, title in ((time, "seconds; lines: a + b x"), (memory, "resident MiB afterwards")):
        axis.set_xscale("log")
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=7)
    time.set_yscale("log")
    memory.set_ylim(0, 1.3 * max(r["rss_mib"] for r in result["by_n"] + result["by_S"]))


def picture(found: dict[str, Result], path: Path) -> None:
    rows = speedups(found)
    figure = plt.figure(figsize=(13, max(6.0, 0.2 * len(rows) + 2)), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1))
    if rows:
        bars(left.subplots(), rows)
    axes = right.subplots(3, 1)
    for axis, name in zip(axes, ("curves", "scaling", "scaling"), strict=True):
        axis.tick_params(which="both", labelsize=7)
        axis.set_visible(name in found)
    if "curves" in found:
        curves(axes[0], found["curves"])
    if "scaling" in found:
        scaling(axes[1], axes[2], found["scaling"])
    if any(result["quick"] for result in found.values()):
        figure.suptitle("--quick: shows that the scripts work, measures nothing", color="red")
    figure.savefig(path, dpi=130)


def described(found: dict[str, Result]) -> list[str]:
    """Which machine and versions, once for each way they were run."""
    lines = []
    for name, result in found.items():
        m = result["machine"]
        versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
        lines.append(
            f"- `{name}`: {m['gpu'] or m['cpu']}, {m['threads']} of {m['cpus']} cores, {m['cores_busy_with_others']:g} "
            f"cores busy with others, {m['seconds']:.0f} s, {m['time'][:10]}; Python {m['python']}, {versions}"
        )
    return lines


def fastest(found: dict[str, Result]) -> list[str]:
    lines = ["| task | what | images/s: median (min to max) |", "|---|---|---|"]
    for name, result in found.items():
        for row in [*result.get("rows", []), *result.get("training", [])]:
            for what, r in row.get("images_per_second", {}).items():
                task = f"{name}, {row.get('preset', '35.7M')}, batch {row['batch']}"
                lines.append(f"| {task} | {what} | {r['median']:.3g} ({r['min']:.3g} to {r['max']:.3g}) |")
    return lines


def table(found: dict[str, Result]) -> str:
    quick = any(result["quick"] for result in found.values())
    lines = ["# Quick runs: no results" if quick else "# Results"]
    lines += ["Written by `benchmarks/plot.py` from the JSON files beside it.", ""]
    lines += [*described(found), "", "![picture](benchmarks.png)", "", "## Times as fast as the peer"]
    lines += ["| task | ddim / peer | median | min to max | pairs |", "|---|---|---|---|---|"]
    for task, pair, r in speedups(found):
        lines.append(f"| {task} | {pair} | {r['median']:.2f} | {r['min']:.2f} to {r['max']:.2f} | {r['n']} |")
    lines += ["", "## Images a second", *fastest(found)]
    if "curves" in found:
        c = found["curves"]
        lines += ["", f"## Held-out eps loss after {c['steps'] * c['batch']} digits"]
        lines += ["| trainer | mean | min to max over seeds |", "|---|---|---|"]
        lines += [f"| {k} | {v['mean']:.4f} | {v['min']:.4f} to {v['max']:.4f} |" for k, v in c["final"].items()]
    if "scaling" in found:
        lines += ["", "## Time and memory against n and S", "| n | S | seconds | us an image and step | resident MiB |"]
        lines += ["|---|---|---|---|---|"]
        for r in found["scaling"]["by_n"] + found["scaling"]["by_S"]:
            lines.append(f"| {r['n']} | {r['S']} | {r['seconds']['median']:.3f} | {r['us_an_image_and_step']:.1f} | "
                         f"{r['rss_mib']:.0f} |")  # fmt: skip
        for x, fit in found["scaling"]["fits"].items():
            lines.append(f"\nAgainst {x}: within {100 * fit['largest_departure']:.1f} % of a straight line; "
                         f"memory {fit['rss_growth_mib']:+.1f} MiB.")  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    where = folder(options(parser(__doc__)).quick)
    found = results(where)
    if not found:
        raise SystemExit(f"no results in {where}; run benchmarks/run.py first")
    picture(found, where / "benchmarks.png")
    (where / "README.md").write_text(table(found))
    print(f"-> {where / 'benchmarks.png'}, {where / 'README.md'}")


if __name__ == "__main__":
    main()
