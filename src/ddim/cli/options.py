"""The options that commands share, each declared once with its help; a command mixes in those it takes.

A mixin also says what its options mean: the model they load, the seeds, the classes, the sampler they compose.
Nothing here imports torch before a command runs: `--help` is a list of words.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, dataclass_transform

import tyro

import ddim
from ddim.cli import typed
from ddim.cli.typed import SPELLED
from ddim.files import free_folder
from ddim.refused import Refused

T = TypeVar("T")

Fast = Literal["auto", "fp32", "bf16", "fp16"]
Exact = Literal["fp32", "fp64"]
COUNT = tyro.conf.arg(name=SPELLED["n"], aliases=("--n",))  # how `n` is typed: --count N, or as ever --n N
DEFAULT = "mnist"  # ddim.model.DEFAULT, which costs the import of torch


@dataclass_transform(frozen_default=True, kw_only_default=True)
def command(cls: type[T]) -> type[T]:
    """A frozen dataclass; in its help the arguments come first, then --out, its own options, and those it shares."""
    made: Any = dataclass(frozen=True, kw_only=True)(cls)
    fields, own = made.__dataclass_fields__, inspect.get_annotations(cls)

    def place(name: str) -> tuple[bool, bool, bool, bool]:
        positional = "Positional" in str(fields[name].type)
        return name != "model", not positional, name != "out" and not positional, name not in own

    made.__dataclass_fields__ = {name: fields[name] for name in sorted(fields, key=place)}
    return cls


@dataclass(frozen=True)
class OfModel:
    """A model that there is."""

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""

    def load(self) -> ddim.Model:
        """The model, on --device where the command has one."""
        return ddim.load(self.model, device=getattr(self, "device", "cpu"))

    def sampler(self, model: ddim.Model, **how: Any) -> ddim.Sampler:
        """Everything that decides an image: the options of the same names as `Model.sampler`'s, and `how` over them."""
        names = ("spacing", "guidance", "clip", "precision")
        own = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return model.sampler(**own | getattr(self, "steering", {}) | how)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """How a foreign checkpoint is read."""

    family: str = "auto"
    """auto, diffusers, ermongroup, openai, lucidrains, edm or scoresde."""
    config: Path | None = None
    """The peer's own settings, a YAML or JSON file, where the checkpoint does not hold them."""


@dataclass(frozen=True, kw_only=True)
class Out:
    """A place for results."""

    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the results go: a new or empty folder."""

    def place(self, metavar: str = "DIR") -> Path:
        """--out, which has no default but must be given."""
        if self.out is None:
            raise Refused(f"say where the results go: --out {metavar}")
        return self.out


@dataclass(frozen=True)
class NewFolder:
    """A folder that is written whole."""

    out: tyro.conf.Positional[Path]
    """The folder to write: a new or an empty one."""

    def refuse_existing(self) -> None:
        """Before any work is done: nothing is there, and something can be."""
        free_folder(self.out)


@dataclass(frozen=True, kw_only=True)
class OnDevice:
    """Where the network runs."""

    device: str = "auto"
    """cpu, cuda, ... or auto."""


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """Images by their first seed."""

    seed: int = 0
    """The first seed."""

    def from_seed(self, n: int, least: int = 1) -> list[int]:
        """n seeds, as many as there must be at least."""
        if n < least or self.seed < 0:
            raise Refused(f"--count must be at least {least} and --seed at least 0, got {n} and {self.seed}")
        most = ddim.process.MOST_SEEDS
        if n > most:
            raise Refused(f"--count is at most {most} images a job, got {n}; divide them by --seed and --out")
        return list(range(self.seed, self.seed + n))


@dataclass(frozen=True, kw_only=True)
class Counted(Seeded):
    """Images by number."""

    n: Annotated[int, COUNT] = 16
    """How many images: seeds SEED..SEED+COUNT-1."""

    def counted(self, least: int = 1) -> list[int]:
        """The seeds, as many as there must be at least."""
        return self.from_seed(self.n, least)


@dataclass(frozen=True, kw_only=True)
class Spaced:
    """Which times."""

    spacing: str = "auto"
    """Which steps: uniform, quadratic, logsnr, trailing, edm (continuous processes), leading, linspace, paper-linear,
    paper-quadratic, tuned, diffusers (the file's own), a peer's (ermongroup-uniform, ermongroup-quad, openai); auto."""


@dataclass(frozen=True, kw_only=True)
class Walked(Spaced):
    """One walk."""

    steps: int | None = None
    """S, the number of steps, 1 to T. Default: 20 (50 for edits and paths), or a student's own."""
    USUAL: ClassVar[int] = 20

    @property
    def usual(self) -> int:
        """As asked for, or as usual."""
        return self.USUAL if self.steps is None else self.steps

    def steps_of(self, model: ddim.Model) -> int | None:
        """The same; None leaves it to a student."""
        return self.usual if model.student is None else self.steps


@dataclass(frozen=True, kw_only=True)
class ManySteps:
    """Several walks, compared."""

    steps: str = "5,10,20,50,100"
    """Numbers of steps, as "10,20,50"."""

    def step_list(self) -> list[int]:
        """At least one number, each at least 1."""
        found = typed.numbers(self.steps, "--steps")
        if not found or min(found) < 1:
            raise Refused(f'--steps takes whole numbers like "10,20,50", got {self.steps!r}')
        return found


def class_names(model: ddim.Model) -> Sequence[str] | None:
    """Of a model, where its classes have any."""
    return model.checkpoint.labels


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Classes."""

    label: str | None = None
    """For class-conditional models: a class by number or name, or one an image "3,1,4"; without it the class is left
    open."""
    LABELS: ClassVar[str] = 'a class like "3" or a list "3,1,4"'

    def names(self, model: ddim.Model) -> Sequence[str] | None:
        """Of the classes, where they have any."""
        return class_names(model)

    def classes(self, model: ddim.Model, items: Sequence[int], label: str | None = None) -> dict[int, int] | None:
        """The class of each item (a seed, a place), or None where it is left open."""
        text = self.label if label is None else label
        named = None if text is None else typed.classes(text, self.names(model), "--label", self.LABELS)
        found = model.labels(named, len(items))
        return None if found is None else dict(zip(items, found.tolist(), strict=True))


@dataclass(frozen=True, kw_only=True)
class Clipped:
    """Bounds on x0."""

    clip: bool | None = None
    """Clamp x0 into the data's range at every step and re-derive eps; default: as the checkpoint says."""


@dataclass(frozen=True, kw_only=True)
class Batched:
    """The size of a network call."""

    batch_size: int = 64
    """Images a network call."""

    def refuse_no_batch(self) -> None:
        """Before anything is loaded."""
        if self.batch_size < 1:
            raise Refused(f"--batch-size must be at least 1, got {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class Quick:
    """Images for people: the fast arithmetic where there is one."""

    precision: Fast = "auto"
    """Number format of the network: auto is bf16 where the hardware computes in it, else fp32; images that are encoded
    first have to come back: auto is fp32 for them. The state and the coefficients stay float32 and float64."""

    @property
    def to_come_back(self) -> str:
        """The number format where a real image is encoded: fp32, unless another was asked for."""
        return "fp32" if self.precision == "auto" else self.precision


@dataclass(frozen=True, kw_only=True)
class Exactly:
    """Latents, which have to lead back."""

    precision: Exact = "fp32"
    """Number format of the network; the states are float64 where images are encoded."""
