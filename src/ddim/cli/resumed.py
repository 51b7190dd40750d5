"""What `ddim train --resume` knows without being told: the options a run was begun with, from what it stored."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ddim.cli.parse import command_from
from ddim.cli.show import duration, rows_of
from ddim.jobs import Recipe, Standing, provenance, stored_recipe
from ddim.refused import Refused

Command = TypeVar("Command", bound=Any)


def settled(asked: Command, parse: Callable[[Command], Command]) -> Command:
    """The run's options with those of argv over them; `parse` reads argv with other defaults."""
    known = options(asked)
    made = parse(known)
    return dataclasses.replace(made, data=known.data) if asked.out is None else made


def options(asked: Command) -> Command:
    """The options of the run that is asked for; without --out, what stands in DATA's place is the run.

    Raises:
        Refused: no run is named, or there is none.
    """
    alone = asked.out is None
    if alone and asked.data is None:
        raise Refused("say which run goes on: ddim train --resume RUN")
    run = Path(str(asked.data)) if alone else Path(str(asked.out))
    stored = stored_recipe(run)
    begun = _begun(type(asked), stored, run)
    changes: dict[str, Any] = {"out": run, "resume": True, "preset": stored.get("preset")}
    changes |= {f: stored[r] for f, r in fields().items() if r in stored}
    changes["min_snr_gamma"] = (
        stored.get("min_snr_gamma") or 0.0
    )  # None of the stored is none; of the options, as usual
    found = asked.data if not alone else _data(stored, begun)
    if found is None:
        raise Refused(
            f"{run} does not say where its images lie (it is of an older version, and never saved a model); "
            f"give them: ddim train DATA --out {run} --resume"
        )
    known: Command = dataclasses.replace(asked if begun is None else begun, data=found, **changes)
    return known


def fields() -> dict[str, str]:
    """Option -> field of the recipe. Both have one name, but for the gradient's largest norm."""
    return {"grad_clip" if name == "clip" else name: name for name in Recipe.__dataclass_fields__}


def by_words(
    asked: Command, parse: Callable[[Command], Command], name: str, stored: Callable[[Path], Mapping[str, Any]]
) -> Command:
    """The options of a run by the words it stored alone, with those of argv over them.

    Raises:
        Refused: no run is named, or there is none.
    """
    first, *_ = (f.name for f in dataclasses.fields(asked) if "Positional" in str(f.type))
    place = getattr(asked, first)
    if asked.out is None and place is None:
        raise Refused(f"say which run goes on: ddim {name} --resume RUN")
    run = Path(place) if asked.out is None else asked.out
    told = stored(run)
    begun = command_from(name, type(asked), shlex.split(told.get("command") or f"ddim {name}")[2:])
    data = begun.data if begun.data is None or Path(begun.data).exists() else told.get("source", begun.data)
    known: Command = dataclasses.replace(begun, data=data, out=run, resume=True)
    made = parse(known)
    return dataclasses.replace(made, **{first: getattr(known, first), "data": data}) if asked.out is None else made


def _begun(command: type[Any], stored: Mapping[str, Any], run: Path) -> Any:
    """The command that began the run; None where neither its recipe nor its model says."""
    words = stored.get("command") or provenance(run).get("command")
    if not isinstance(words, str):
        return None
    try:
        begun: Any = command_from(name_of(run), command, shlex.split(words)[2:])
    except ValueError:  # Refused is one: words of a later version
        return None
    return begun


def _data(stored: Mapping[str, Any], begun: Any) -> str | None:
    """Where the images lie: as stored where they are there, else as it was typed."""
    source, typed = stored.get("source"), None if begun is None else begun.data
    return typed if source is None or (typed is not None and Path(typed).exists()) else str(source)


def name_of(run: Path) -> str:
    """The command that made a run: train, or train-autoencoder."""
    words = stored_recipe(run).get("command")
    return "train-autoencoder" if isinstance(words, str) and words.startswith("ddim train-autoencoder ") else "train"


def progress(run: Path, found: Standing, train: type[Any]) -> str:
    """How far a run has come, one fact a line; `train` are the options of the command that made it."""
    begun = _begun(train, stored_recipe(run), run)
    most = None if begun is None else begun.max_steps
    left = None if most is None else found.left(most)
    rows = [
        ("steps done", f"{found.steps}" + ("" if most is None else f" of {most}")),
        ("images seen", f"{found.images:,}"),
        ("data", found.data or "not stored (a run of an older version)"),
        ("command", found.command or "not stored (a run of an older version)"),
        ("last loss", "nothing logged yet" if found.loss is None else f"{found.loss:.4g} at step {found.logged}"),
        ("time left", _left(found, most, left)),
        ("goes on with", f"ddim {name_of(run)} --resume {shlex.quote(str(run))}"),
    ]
    return rows_of(rows)


def _left(found: Standing, most: int | None, left: float | None) -> str:
    if most is not None and found.steps >= most:
        return "none: all steps are done; more with --max-steps"
    if left is None:
        return "not known: nothing logged yet" if most is not None else "not known: max-steps is not stored"
    return f"about {duration(left)} at {found.speed:.3g} images/s"
