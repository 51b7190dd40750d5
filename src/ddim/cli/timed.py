"""`ddim tune` where times are searched: the search, told and kept."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import ddim
from ddim.cli import results, show
from ddim.files import VERSION, write_json

if TYPE_CHECKING:
    from ddim.data import Images
    from ddim.jobs import Tuned

SPECTRUM_IMAGES = 5000


def search(command: Any, model: ddim.Model, steps: list[int]) -> None:
    """Times for each number of steps, saved as they are found."""
    images = command.images(model)
    found: dict[int, Tuned] = {}
    for S in steps:
        found[S] = _one(command, model, images, S)
        if command.save:  # at once: it took long
            path = model.save_tau(found[S].chosen.tau, command.solver)
    if command.out is not None:
        document = _document(command, model, found)
        results.in_file(command.out, lambda path: write_json(path, document, new=True))
        print(command.out)
    if command.save:
        print(f"saved in {path}: use --spacing tuned --solver {command.solver}")


def _one(command: Any, model: ddim.Model, images: Images, steps: int) -> Tuned:
    import numpy as np

    index = np.sort(ddim.process.generator(0, "spectrum").permutation(len(images))[:SPECTRUM_IMAGES])
    power = ddim.uses.spectrum(images.pixels[index]) / model.space.unit**2
    label = "cycle" if model.num_classes else None
    job = ddim.jobs.tune(
        command.sampler(model, label=label, solver=command.solver, steps=steps),
        others={"closed form": ddim.uses.closed_form(model.process, power, steps)},
        latents=command.latents, long=command.long, candidates=command.candidates, trials=command.trials,
        batch_size=command.batch_size,
    )  # fmt: skip
    for news in job:
        if not isinstance(news, str):
            _tell(command, news, steps)
            return news
        if sys.stderr.isatty():
            print(f"{steps} steps: {news}", file=sys.stderr)
    raise RuntimeError("the search ended without a result")


def _tell(command: Any, result: Tuned, steps: int) -> None:
    print(
        f"{steps} steps of {command.solver}: distance to {command.long} steps of dpm++3m from the same latents "
        "(each image's RMS, geometric mean)"
    )
    rivals = sorted(result.rivals, key=lambda r: r.unseen)
    rows = [[r.name, f"{r.seen:.4f}", f"{r.unseen:.4f}", " ".join(f"{t:g}" for t in r.tau)] for r in rivals]
    print(show.table(["times", "searched on", "unseen", "tau"], rows))
    print(f"chosen: {result.chosen.name}\n")


def _document(command: Any, model: ddim.Model, results: dict[int, Tuned]) -> dict[str, object]:
    return {
        "model": command.model, "weights": model.weights_hash, "solver": command.solver, "latents": command.latents,
        "long": command.long, "candidates": command.candidates, "trials": command.trials, "guidance": command.guidance,
        "guide": command.guide, "interval": command.interval, "version": VERSION,
        "precision": model.runs_in(command.precision),
        "tau": {str(S): list(r.chosen.tau) for S, r in results.items()},
        "rivals": {
            str(S): [{"name": v.name, "seen": v.seen, "unseen": v.unseen, "tau": list(v.tau)} for v in r.rivals]
            for S, r in results.items()
        },
    }  # fmt: skip
