"""`ddim sample`: images to a folder, streamed, resumable, shared among processes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from ddim import __version__
from ddim.cli.show import progress
from ddim.engine import Exported
from ddim.jobs import BatchSize, Settled, When, complete, generate, open_job, settle, share_of, verify, write_npz
from ddim.model import DEFAULT, Model, load
from ddim.process import MOST_SEEDS, noise, parse_seeds
from ddim.refused import Refused
from ddim.solve import DDIM, Solver, sample, solver_named

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Command:
    """Make images: one PNG a seed, a grid, a recipe and a manifest. Interrupted, the same command goes on."""

    model: tyro.conf.Positional[str] = DEFAULT
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the images go: a new or empty folder, or one this same command began."""
    n: int = 16
    """How many images: seeds SEED..SEED+N-1."""
    seed: int = 0
    """The first seed."""
    seeds: str | None = None
    """The seeds themselves, as "7", "1,2,5-10" or "0-49999", in place of --n and --seed."""
    steps: int | None = None
    """S, the number of steps, 1 to T; 20 unless --tau is given."""
    eta: float = 0.0
    """0 is deterministic DDIM, 1 is DDPM; the paper's eta."""
    sigma_hat: bool = False
    """DDPM's larger noise ("fixedlarge") with the paper's D.3 coefficients, in place of --eta."""
    spacing: str = "uniform"
    """Which steps: uniform, quadratic, logsnr, trailing, leading, linspace, paper-linear, paper-quadratic, tuned,
    diffusers (the file's own), or a peer's: ermongroup-uniform, ermongroup-quad, openai."""
    tau: str | None = None
    """The times themselves, falling to 0, as "981,640,1,0"; in place of --steps and --spacing."""
    solver: str = "ddim"
    """ddim, heun, or one of the multistep solvers, e.g. ab2, dpm++2m, unipc."""
    label: str | None = None
    """For class-conditional models: a class "3", one a seed "3,1,4", or "cycle" (seed modulo the number of classes).
    Without it the class is left open."""
    guidance: float = 1.0
    """Weight of classifier-free guidance; 1 is the plain conditional network."""
    clip: bool | None = None
    """Clamp x0 into the data's range at every step and re-derive eps; default: as the checkpoint says."""
    batch_size: BatchSize = 64
    """Images a network call, or auto: what fits the memory. Noise never depends on it; pixels by at most 1 level of
    255, and rarely."""
    precision: Precision = "fp32"
    """Number format of the network; the state and the coefficients stay float32 and float64."""
    compile: When = "auto"
    """Whether the network goes through torch.compile; auto does it where the job is long enough to repay it."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""
    npz: bool = False
    """Also write samples_NxHxWxC.npz (arr_0 uint8 NHWC, arr_1 labels), the ADM evaluator's file."""
    verify: bool = False
    """Make nothing: check the folder --out against its manifest."""

    def run(self) -> None:
        if self.out is None:
            raise Refused("say where the images go: --out DIR")
        if self.verify:
            print(f"{self.out}: {verify(self.out)} images, each as its manifest says")
            return
        rank, world = share_of(os.environ)
        seeds = self._seeds()
        model = load(self.model, device=self.device)
        times = self._times(model)
        solver = self._solver()
        labels = self._labels(model, seeds)
        self._refuse_early(model, times, solver, labels)
        settled = settle(
            self.batch_size, self._compile(model), out=self.out, n=len(seeds),
            calls_an_image=solver.calls(times),
            call=lambda rows: self._call(model, times[0], labels, rows), device=model.device, rank=rank, world=world,
        )  # fmt: skip
        for note in settled.notes:
            print(note)
        recipe = self._recipe(model, times, settled, len(seeds))
        out = open_job(self.out, {**recipe, "seeds": self.seeds or f"{seeds[0]}-{seeds[-1]}"})
        by_seed = dict(zip(seeds, labels, strict=True)) if labels is not None else None

        def make(batch: list[int]) -> Any:
            return model.sample(
                seeds=batch, tau=times, solver=solver, guidance=self.guidance, clip=self.clip,
                label=None if by_seed is None else [by_seed[s] for s in batch],
                precision=self.precision, batch_size=len(batch), compiled=settled.compiled,
            ).cpu()  # fmt: skip

        with progress(len(seeds[rank::world]), "images") as bar:
            for done in generate(
                make, seeds, out, recipe, batch_size=settled.batch, rank=rank, world=world, classes=by_seed
            ):
                bar(done)
        self._report(out, seeds, labels, rank)

    def _report(self, out: Path, seeds: list[int], labels: list[int] | None, rank: int) -> None:
        if not complete(seeds, out):
            print(f"process {rank} is done; others are still at work on {out}")
            return
        print(f"{len(seeds)} images in {out}, overview {out / 'grid.png'}")
        if self.npz:
            print(write_npz(seeds, out, labels))

    def _seeds(self) -> list[int]:
        if self.seeds is not None:
            if self.n != 16 or self.seed != 0:
                raise Refused("give --seeds, or --n and --seed, not both")
            return parse_seeds(self.seeds)
        if self.n < 1 or self.seed < 0:
            raise Refused(f"--n must be at least 1 and --seed at least 0, got {self.n} and {self.seed}")
        if self.n > MOST_SEEDS:
            raise Refused(f"--n is at most {MOST_SEEDS} images a job, got {self.n}; divide them by --seed and --out")
        return list(range(self.seed, self.seed + self.n))

    def _times(self, model: Model) -> tuple[int, ...]:
        if self.tau is None:
            return model.tau(20 if self.steps is None else self.steps, self.spacing, solver=self.solver)
        if self.spacing != "uniform":
            raise Refused("give --tau or --spacing, not both")
        try:
            times = [int(t) for t in self.tau.split(",")]
        except ValueError:
            raise Refused(f'--tau is written like "981,640,1,0"; cannot read {self.tau!r}') from None
        return model.tau(self.steps, times)

    def _solver(self) -> Solver[Any]:
        if not self.sigma_hat:
            return solver_named(self.solver, self.eta)
        if self.eta or self.solver != "ddim":
            raise Refused("--sigma-hat is DDPM's noise in the ddim solver: give it without --eta and --solver")
        return DDIM(sigma="hat")

    def _labels(self, model: Model, seeds: list[int]) -> list[int] | None:
        if self.label is None:
            model.labels(None, len(seeds))
            return None
        if self.label == "cycle":
            if model.num_classes is None:
                raise Refused("--label cycle was asked for, but this model was trained without classes")
            return [s % model.num_classes for s in seeds]
        try:
            values = [int(v) for v in self.label.split(",")]
        except ValueError:
            raise Refused(f'--label is a class like "3", a list "3,1,4" or "cycle"; got {self.label!r}') from None
        classes = model.labels(values, len(seeds))
        return None if classes is None else classes.tolist()

    def _refuse_early(
        self, model: Model, times: tuple[int, ...], solver: Solver[Any], labels: list[int] | None
    ) -> None:
        """Build everything once, so that what cannot work is refused before a folder is made."""
        from ddim.denoise import GaussianDenoiser

        channels = model.shape[0]
        if channels not in (1, 3):
            raise Refused(f"a PNG holds 1 or 3 channels, this model makes {channels}; use Model.sample in Python")
        first = None if labels is None else model.labels(labels[0], 1)
        if self.batch_size == "auto" and isinstance(model.checkpoint.network, Exported):
            raise Refused("nobody tells how much memory an exported network needs: give --batch-size a number")
        impossible = self.compile == "always" and isinstance(model.checkpoint.network, Exported)
        model.denoiser(
            label=first, guidance=self.guidance, clip=self.clip, precision=self.precision, compiled=impossible
        )
        sample(GaussianDenoiser(model.schedule, 0.0, 1.0), noise([0], (2,)), times, solver=solver, seeds=[0])

    @torch.no_grad()
    def _call(self, model: Model, t: int, labels: list[int] | None, rows: int) -> None:
        """One network call on that many images, as this job makes them."""
        label = None if labels is None else model.labels(labels[0], rows)
        denoise = model.denoiser(label=label, guidance=self.guidance, clip=self.clip, precision=self.precision)
        denoise(noise([0] * rows, model.shape).to(model.device), t)

    def _compile(self, model: Model) -> When:
        exported = isinstance(model.checkpoint.network, Exported)
        return "never" if exported and self.compile == "auto" else self.compile

    def _recipe(self, model: Model, times: tuple[int, ...], settled: Settled, n: int) -> dict[str, Any]:
        return {
            "model": self.model, "weights": model.weights_hash, "reading": model.checkpoint.reading,
            "tau": list(times), "steps": len(times) - 1, "solver": self.solver, "eta": self.eta,
            "sigma_hat": self.sigma_hat, "label": self.label, "guidance": self.guidance, "clip": self.clip,
            "precision": model.runs_in(self.precision), "batch": min(settled.batch, n),
            "device": model.device.type, "version": __version__,
            **({"compiled": True} if settled.compiled else {}),
        }  # fmt: skip
