"""`ddim tune` where images are the measure: guidance with its interval, or the hand-over from a smaller network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ddim
from ddim.cli import show
from ddim.files import VERSION, write_json

if TYPE_CHECKING:
    from ddim.jobs import Cell, GuidanceTried, HandOver, Judge, Row, TunedGuidance, TunedHandOver

AUTO = "auto"


def search(command: Any, model: ddim.Model, steps: list[int]) -> None:
    """Guidance, or the hand-over, for each number of steps: searched, told, kept."""
    look = command.look(model.picture_shape[0], model.device)
    held = None if command.held_out is None else command.images(model, command.held_out)
    own = command.images(model)
    n = ddim.jobs.n_allowed(own, held) if command.n is None else command.n
    data = ddim.jobs.RealSets.of(own, held, n, command.reference)
    stochastic = ddim.solve.solver_named(command.solver).stochastic
    kind, document = ("guidance" if command.guidance == AUTO else "hand-over"), dict[str, Any]()
    one_search = _guidance if kind == "guidance" else _handover
    over = command.over(ddim.jobs.share_of(os.environ), model)
    with _folder(command) as folder:
        judge = ddim.jobs.Judge.of(
            data, look, n, num_classes=ddim.jobs.classes_known(look, model), batch_size=command.batch_size,
            folder=folder, over=over,
        )  # fmt: skip
        name = ddim.metrics.distance_name(look.name)
        print(f"{n} images a candidate, {len(data.reference)} real ones as the reference; {name}; real images that are "
              f"not in it: {judge.floor.distance:.4g}{_error(judge.floor)}")  # fmt: skip
        for S in steps:
            cell = ddim.jobs.Cell(command.solver, 1.0 if stochastic else 0.0, S, command.spacing)
            document[str(S)] = one_search(command, model, cell, judge)
        if command.out is not None:
            stamp = {
                "model": command.model, "weights": model.weights_hash, "search": kind, "distance": name, "n": n,
                "solver": command.solver, "spacing": command.spacing, "guide": command.guide, "early": command.early,
                **data.stamp(command.data, command.held_out or command.data), "extractor": ddim.jobs.stamp_of(look),
                "precision": model.runs_in(command.precision), "version": VERSION, "floor": judge.floor.as_dict(),
            }  # fmt: skip
            print(write_json(command.out / f"{kind}.json", {"stamp": stamp, "steps": document}))


@contextmanager
def _folder(command: Any) -> Iterator[Path]:
    """Where measured images are kept: in --out, or nowhere for long."""
    if command.out is None:
        with tempfile.TemporaryDirectory() as place:
            yield Path(place)
        return
    hold, _ = ddim.jobs.take_up(command.out)
    yield command.out / "cells"
    if hold is not None:
        hold.release()


def _guidance(command: Any, model: ddim.Model, cell: Cell, judge: Judge) -> dict[str, Any]:
    label = "cycle" if model.num_classes else None

    def sampler(weight: float, interval: Any) -> ddim.Sampler:
        found: ddim.Sampler = command.sampler(model, label=label, guidance=weight, interval=interval, **cell.how())
        return found

    sampler(2.0, None).rehearse()
    found: TunedGuidance = show.last(ddim.jobs.tune_guidance(sampler, cell, judge, trials=command.trials), cell.steps)
    checked = {id(one.seen): one for one in found.finalists}
    plain, best = found.finalists[0], found.chosen
    rows = [
        [f"{one.weight:g}", _span(one.interval), *_numbers(one.seen), *_unseen(checked.get(id(one.seen)), plain)]
        for one in sorted(found.tried, key=lambda one: one.seen.distance)
    ]
    print(f"{cell.steps} steps of {cell.solver}", show.table(["weight", "t", *HEAD], rows), sep="\n")
    helps = best.weight != 1.0
    print(f"chosen: weight {best.weight:g}, {_span(best.interval)}" if helps else
          "chosen: no guidance; nothing was two standard errors nearer on unseen seeds")  # fmt: skip
    if command.save:
        guide = command.steering.get("guide")
        path = model.save_guidance(best.weight, best.interval, solver=cell.solver, steps=cell.steps, guide=guide)
        by = f" --guide {command.guide}" if guide is not None else ""
        print(f"saved in {path}: use{by} --guidance tuned --solver {cell.solver} --steps {cell.steps}\n")
    tried = [_as_json(checked.get(id(one.seen), one)) for one in found.tried]
    return {"guidance": best.weight, "interval": best.interval, "tried": tried}


def _handover(command: Any, model: ddim.Model, cell: Cell, judge: Judge) -> dict[str, Any]:
    label, early = "cycle" if model.num_classes else None, command.steering["early"]

    def sampler(at: Any) -> ddim.Sampler:
        found: ddim.Sampler = command.sampler(model, label=label, early=early, at=at, **cell.how())
        return found

    alone = command.sampler(early, label=label, early=None, at=None, **cell.how())
    sampler(model.process.T).rehearse()
    small, large = early.operations(), model.operations()
    costs = None if small is None or large is None else (small, large)
    found: TunedHandOver = show.last(ddim.jobs.tune_handover(sampler, alone, cell, judge, costs), cell.steps)
    whole = found.tried[0]
    rows = [
        ["none" if one.at is None else f"{one.at:g}", f"{one.early}+{one.late}",
         "" if one.cost is None else f"{one.cost:.2f}", *_numbers(one.seen), *_unseen(one, whole)]
        for one in found.tried
    ]  # fmt: skip
    head = ["at", "calls", "cost", *HEAD[:-2], "unseen", "over the large one"]
    print(f"{cell.steps} steps of {cell.solver}", show.table(head, rows), sep="\n")
    at = found.chosen.at
    if at == whole.at:
        print("chosen: the large network alone; no hand-over was within two standard errors of it on both sets")
    else:
        print(f"chosen: hand over at {at:g}; at this n not told apart from the large network alone")
    if command.save and at is not None:
        path = model.save_handover(at, early, solver=cell.solver, steps=cell.steps)
        print(f"saved in {path}: use --early {command.early} --solver {cell.solver} --steps {cell.steps}\n")
    return {"at": at, "operations": costs, "tried": [_as_json(one) for one in found.tried]}


HEAD = ("searched on", "+-", "precision", "recall", "class acc.", "NFE", "s/image", "unseen", "over plain")


def _numbers(row: Row) -> list[str]:
    numbers = (row.distance, row.distance_std, row.precision, row.recall, row.class_accuracy, row.nfe)
    told = zip((*numbers, row.seconds_per_image), (4, 2, 3, 3, 3, 4, 2), strict=True)
    return ["" if v is None else f"{v:.{k}g}" for v, k in told]


def _unseen(one: GuidanceTried | HandOver | None, beside: GuidanceTried | HandOver) -> list[str]:
    """On unseen seeds: the distance, and how far it is above that of another."""
    if one is None or one.unseen is None or beside.unseen is None:
        return ["", ""]
    over, error = ddim.jobs.above(one.unseen, beside.unseen)
    return [f"{one.unseen.distance:.4g}", f"{over:+.2g}" + ("" if error is None else f" +- {error:.2g}")]


def _as_json(one: GuidanceTried | HandOver) -> dict[str, Any]:
    told = {name: value for name, value in vars(one).items() if name not in ("seen", "unseen")}
    return {**told, "seen": one.seen.as_dict(), "unseen": None if one.unseen is None else one.unseen.as_dict()}


def _span(interval: Any) -> str:
    return "everywhere" if interval is None else f"{interval[0]:g}..{interval[1]:g}"


def _error(row: Row) -> str:
    return "" if row.distance_std is None else f" +- {row.distance_std:.2g}"
