"""`ddim tune` where times are searched: the search, told and kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ddim
from ddim.cli import results, show
from ddim.files import VERSION, read_json, write_json

if TYPE_CHECKING:
    from ddim.data import Images
    from ddim.jobs import Tuned

SPECTRUM_IMAGES = 5000


def search(command: Any, model: ddim.Model, steps: list[int]) -> None:
    """Times for each number of steps, saved as they are found."""
    share, images = ddim.jobs.share_of(os.environ), command.images(model)
    names = [str(S) for S in steps]
    result = command.out or (model.folder or Path()) / "tuned.json"
    pieces = ddim.jobs.Pieces(
        result, lambda: {**_asked(command, model), "images": images.report.sha256},
        lambda one, path: write_json(path, one.as_json()), ddim.jobs.Tuned.load,
    )  # fmt: skip

    power, over = _power(model, images), command.over(share, model)

    def told(make: Callable[[Any], Tuned], items: Iterable[Any]) -> Iterator[Tuned]:
        for made in over(make, items):
            _tell(command, made)
            if command.save:  # at once: it took long
                model.save_tau(made.chosen.tau, command.solver)
            yield made

    for _ in pieces.made(names, lambda name: _one(command, model, power, int(name)), share, over=told):
        pass
    tuned = pieces.joined(names)
    if tuned is None:
        show.unfinished(share, pieces.crew, result)
        return
    if made_by_others(command, steps):
        pieces.clear()
        return
    found = dict(zip(steps, tuned, strict=True))
    if command.out is not None:
        document = _document(command, model, found)
        results.in_file(command.out, lambda path: write_json(path, document, new=True))
        print(command.out)
    pieces.clear()
    if command.save:
        print(f"saved in {model.folder}: use --spacing tuned --solver {command.solver}")


def _power(model: ddim.Model, images: Images) -> Any:
    """The spectrum of the data, in the model's units."""
    import numpy as np

    index = np.sort(ddim.process.generator(0, "spectrum").permutation(len(images))[:SPECTRUM_IMAGES])
    return ddim.uses.spectrum(images.pixels[index]) / model.space.unit**2


def _one(command: Any, model: ddim.Model, power: Any, steps: int) -> Tuned:
    label = "cycle" if model.num_classes else None
    job = ddim.jobs.tune(
        command.sampler(model, label=label, solver=command.solver, steps=steps),
        others={"closed form": ddim.uses.closed_form(model.process, power, steps)} if model.space.lossless else {},
        latents=command.latents, long=command.long, candidates=command.candidates, trials=command.trials,
        batch_size=command.batch_size,
    )  # fmt: skip
    found: Tuned = show.last(job, steps)
    return found


def _tell(command: Any, result: Tuned) -> None:
    steps = len(result.chosen.tau) - 1
    print(
        f"{steps} steps of {command.solver}: distance to {command.long} steps of dpm++3m from the same latents "
        "(each image's RMS, geometric mean)"
    )
    rivals = sorted(result.rivals, key=lambda r: r.unseen)
    rows = [[r.name, f"{r.seen:.4f}", f"{r.unseen:.4f}", " ".join(f"{t:g}" for t in r.tau)] for r in rivals]
    print(show.table(["times", "searched on", "unseen", "tau"], rows))
    print(f"chosen: {result.chosen.name}\n")


def made_by_others(command: Any, steps: list[int]) -> bool:
    """Whether these times stand in --out already: other processes were faster; that is said."""
    if ddim.jobs.share_of(os.environ).world == 1 or command.out is None or not command.out.is_file():
        return False
    found = read_json(command.out)
    same = all(found.get(name) == getattr(command, name) for name in ("model", "solver", "latents", "long", "trials"))
    same = same and list(found.get("tau", {})) == [str(S) for S in steps]
    if same:
        print(f"{command.out}: others have made it")
    return same


def _asked(command: Any, model: ddim.Model) -> dict[str, object]:
    return {
        "model": command.model, "weights": model.weights_hash, "solver": command.solver, "latents": command.latents,
        "long": command.long, "candidates": command.candidates, "trials": command.trials, "guidance": command.guidance,
        "guide": command.guide, "interval": command.interval, "version": VERSION,
        "precision": model.runs_in(command.precision),
    }  # fmt: skip


def _document(command: Any, model: ddim.Model, results: dict[int, Tuned]) -> dict[str, object]:
    return {
        **_asked(command, model),
        "tau": {str(S): list(r.chosen.tau) for S, r in results.items()},
        "rivals": {str(S): r.as_json()["rivals"] for S, r in results.items()},
    }
