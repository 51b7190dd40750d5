"""`ddim evaluate`: quality against steps, eta, solver and spacing, with the protocol in every number."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from tqdm import tqdm

from ddim import __version__
from ddim.cli.show import table
from ddim.data import Images, open_images
from ddim.denoise import Denoiser
from ddim.files import digest
from ddim.jobs import (
    Cell,
    Made,
    Reference,
    Row,
    Subject,
    answer,
    compared,
    heads,
    make,
    real,
    split,
    stamp_of,
    table_cells,
    table_of,
    write_report,
)
from ddim.metrics import distance_name, extractor
from ddim.model import Model, load
from ddim.refused import Refused

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Command:
    """How many steps does this model need? A table and one page; interrupted, the same command goes on.

    Class-conditional models are asked for class (seed modulo number of classes).
    """

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    data: tyro.conf.Positional[str]
    """Real images: a folder, a .parquet file, a hub id."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="REPORT")] = None
    """Folder for the report; finished cells in it are used again."""
    steps: str = "5,10,20,50,100"
    """Numbers of steps."""
    eta: str = "0,0.5,1"
    """Etas of the ddim solver; 1 is DDPM."""
    solver: str = "ddim"
    """Solvers, e.g. ddim,heun,ab2,dpm++2m,unipc."""
    spacing: str = "uniform"
    """Which times, e.g. uniform,trailing,tuned."""
    also: str = ""
    """More rows, as SOLVER:ETA:STEPS:SPACING, e.g. "ddim:1:1000:uniform,ddim:hat:1000:uniform"."""
    sigma_hat: bool = True
    """Add the rows of DDPM's larger noise to solver ddim."""
    n: int = 5000
    """Images of each row, and of the noise floor."""
    seed: int = 0
    """The first seed; the rows use seeds SEED..SEED+N-1."""
    extractor: str = "mnist"
    """What features are compared: mnist, inception (FID), dinov2, pixels, or a TorchScript (.pt) or .pt2 file."""
    held_out: str | None = None
    """Other real images for the noise floor (a test set); default: n of DATA, taken out of the reference."""
    reference: int = 50_000
    """Real images of the reference, at most."""
    guidance: float = 1.0
    """Weight of classifier-free guidance."""
    clip: bool | None = None
    """Clamp x0 at every step; default: as the checkpoint says."""
    batch_size: int = 64
    """Images a network call."""
    precision: Precision = "fp32"
    """Number format of the network."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""

    def run(self) -> None:
        if self.out is None:
            raise Refused("say where the report goes: --out REPORT")
        if self.n < 10 or self.batch_size < 1 or self.seed < 0 or self.reference < 10:
            raise Refused(f"--n and --reference must be at least 10, --batch-size 1, --seed 0; n is {self.n}")
        if self.out.exists() and (
            not self.out.is_dir() or (any(self.out.iterdir()) and not (self.out / "cells").is_dir())
        ):
            raise Refused(f"{self.out} exists and holds no evaluation; choose a new folder for --out")
        cells = self._cells()
        model = load(self.model, device=self.device)
        subject = self._subject(model)
        for cell in cells:
            subject.tau(cell.steps, cell.spacing, cell.solver)  # what cannot work is refused before anything is made
        look = extractor(self.extractor, model.device)
        own = self._images(self.data, model)
        reference_at, held_at = split(own, 0 if self.held_out else self.n, self.reference)
        if len(reference_at) < 10:
            left = f"{len(own)} images, of which {len(reference_at)} are left for the reference"
            raise Refused(f"{self.data} has {left}: at least 10 are needed; lower --n or give --held-out")
        held = own if self.held_out is None else self._images(self.held_out, model)
        if self.held_out is not None:
            if len(held) < self.n:
                raise Refused(f"--held-out has {len(held)} images, fewer than --n {self.n}")
            held_at = split(held, self.n, 0)[1]
        work: dict[str, Any] = {"extractor": look, "batch_size": self.batch_size, "folder": self.out / "cells"}
        seeds = list(range(self.seed, self.seed + self.n))
        with tqdm(total=len(cells) * self.n, unit=" images", file=sys.stderr, disable=not sys.stderr.isatty()) as bar:
            reference = Reference(_last(real(own, reference_at, **work)))
            floor = reference.row(_last(real(held, held_at, **work)), None, None, "real, held out")
            made: dict[Cell, Made] = {}
            for i, cell in enumerate(sorted(cells, key=lambda c: c.steps)):  # cheap rows first: an early picture
                bar.set_postfix_str(cell.name)
                made[cell] = _last(
                    make(subject, cell, seeds, **work), lambda done, i=i: bar.update(i * self.n + done - bar.n)
                )
                bar.update((i + 1) * self.n - bar.n)
        known = reference.classes is not None and reference.classes == model.num_classes
        labels = [s % reference.classes for s in seeds] if known and reference.classes else None
        scored = {cell: reference.row(made[cell], cell, labels) for cell in cells}
        rows = compared(scored, made)
        name = distance_name(look.name)
        stamp = self._stamp(
            model, own, held, len(reference_at), digest([reference_at.tolist(), held_at.tolist()]), look, name
        )
        words = answer(rows, name, floor)
        page = write_report(self.out, rows, floor, {c: made[c] for c in cells}, stamp, words)
        self._tell(rows, floor, name, page, words)

    def _tell(self, rows: list[Row], floor: Row, name: str, page: Path, words: list[str]) -> None:
        print(table(heads(name), [table_cells(r) for r in [*rows, floor]]))
        print("", *words, f"report: {page}", sep="\n")

    def _cells(self) -> list[Cell]:
        steps = [_whole("--steps", s) for s in self.steps.split(",") if s]
        etas = [_number("--eta", e) for e in self.eta.split(",") if e]
        cells = (
            table_of(steps, etas, _words(self.solver), _words(self.spacing), sigma_hat=self.sigma_hat) if steps else []
        )
        for text in _words(self.also):
            parts = text.split(":")
            if len(parts) != 4:
                raise Refused(f"--also takes SOLVER:ETA:STEPS:SPACING, got {text!r}")
            cell = Cell(
                parts[0],
                None if parts[1] == "hat" else _number("--also", parts[1]),
                _whole("--also", parts[2]),
                parts[3],
            )
            cell.method()
            cells.append(cell)
        if not cells:
            raise Refused("no rows: give --steps or --also")
        return list(dict.fromkeys(cells))

    def _subject(self, model: Model) -> Subject:
        K = model.num_classes

        def denoiser(seeds: list[int]) -> Denoiser:
            label = model.labels([s % K for s in seeds], len(seeds)) if K else None
            return model.denoiser(label=label, guidance=self.guidance, clip=self.clip, precision=self.precision)

        settings = {
            "label": "cycle" if K else None, "guidance": self.guidance, "clip": self.clip, "precision": self.precision,
            "device": model.device.type,
        }  # fmt: skip
        return Subject(
            str(self.model), model.weights_hash, model.shape, model.checkpoint.reading, denoiser,
            lambda steps, spacing, solver: model.tau(steps, spacing, solver=solver), model.space.decode,
            model.device, settings,
        )  # fmt: skip

    def _images(self, data: str, model: Model) -> Images:
        c, h, w = model.shape
        return open_images(data, size=(h, w), channels=c)

    def _stamp(
        self, model: Model, own: Images, held: Images, size: int, places: str, look: Any, name: str
    ) -> dict[str, Any]:
        return {
            "model": str(self.model), "weights sha256": model.weights_hash, "distance": name, "n": self.n,
            "seeds": f"{self.seed}-{self.seed + self.n - 1}", "reference": f"{size} images of {self.data}",
            "reference sha256": own.report.sha256, "held out": f"{self.n} images of {self.held_out or self.data}",
            "held out sha256": held.report.sha256, "places hash": places, "extractor": stamp_of(look),
            "image size": list(model.shape), "rounding": "8 bits before features", "guidance": self.guidance,
            "clip": self.clip, "precision": model.runs_in(self.precision), "batch size": self.batch_size,
            "device": model.device.type, "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
            "ddim": __version__, "torch": torch.__version__, "command": " ".join(["ddim", *sys.argv[1:]]),
        }  # fmt: skip


def _last(steps: Any, tell: Any = lambda done: None) -> Made:
    """Drive a job to its end; what it yields last is the result."""
    for value in steps:
        if isinstance(value, Made):
            return value
        tell(value)
    raise RuntimeError("the job ended without a result")


def _words(text: str) -> list[str]:
    return [w.strip() for w in text.split(",") if w.strip()]


def _whole(flag: str, text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise Refused(f'{flag} takes whole numbers like "10,20,50", cannot read {text!r}')
    return int(text)


def _number(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Refused(f'{flag} takes numbers like "0,0.5,1", cannot read {text!r}') from None
