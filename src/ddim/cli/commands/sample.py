"""`ddim sample`: images to a folder, streamed, resumable, shared among processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

import ddim
from ddim.cli import clustered, options, show, steered, typed
from ddim.refused import Refused

ORDER = ("model", "weights", "reading", "tau", "steps", "solver", "eta", "sigma_hat", "variance", "label", "guidance",
         "interval", "guide", "early", "at", "clip", "precision", "batch", "device", "version", "compiled")  # fmt: skip


@options.command
class Command(
    options.OnDevice, options.Quick, options.Clipped, steered.Steered, steered.HandedOver, options.Labelled,
    options.Spaced, options.Counted, options.Out, clustered.OnCluster, options.OfModel,
):  # fmt: skip
    """Make images: one PNG a seed, a grid, a recipe and a manifest. Interrupted, the same command goes on."""

    model: tyro.conf.Positional[str] = options.DEFAULT
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the images go: a new or empty folder, or one this same command began."""
    seeds: str | None = None
    """The seeds themselves, as "7", "1,2,5-10" or "0-49999", in place of --count and --seed."""
    steps: int | None = None
    """S, the number of steps, 1 to T; 20, or a student's own, unless --tau is given."""
    eta: float = 0.0
    """0 is deterministic DDIM, 1 is DDPM; the paper's eta."""
    sigma_hat: bool = False
    """DDPM's larger noise ("fixedlarge") with the paper's D.3 coefficients, in place of --eta."""
    sigma_learned: bool = False
    """DDPM (eta 1) with the variance the network predicts, where it does: OpenAI's models, diffusers' learned_range."""
    tau: str | None = None
    """The times themselves, falling to 0, as "981,640,1,0"; in place of --steps and --spacing."""
    solver: str = "ddim"
    """ddim, heun, a multistep one (ab2, dpm++2m, unipc, ..), of the SDE: euler-maruyama, pc, langevin, heun-churn."""
    label: str | None = None
    """For class-conditional models: a class "3", one a seed "3,1,4", or "cycle" (seed modulo classes); or left open."""
    LABELS: ClassVar[str] = 'a class like "3", a list "3,1,4" or "cycle"'
    batch_size: int | Literal["auto"] = 64
    """Images a network call, or auto: what fits the memory. Noise never depends on it; pixels rarely, by 1 of 255."""
    compile: Literal["auto", "always", "never"] = "auto"
    """Whether the network goes through torch.compile; auto does it where the job is long enough to repay it."""
    shards: int = 0
    """Tar files of so many images, as WebDataset reads them; 0: PNGs, above 10,000 in folders of a thousand."""
    npz: bool = False
    """Also write samples_NxHxWxC.npz (arr_0 uint8 NHWC, arr_1 labels), the ADM evaluator's file."""
    verify: bool = False
    """Make nothing: check the folder --out against its manifest."""

    def run(self) -> None:
        out = self.place()
        if self.verify:
            print(f"{out}: {ddim.jobs.verify(out)} images, each as its manifest says")
            return
        share = ddim.jobs.share_of(os.environ)
        seeds, model = self._seeds(), self.load()
        over = self.over(share, model)
        kept = ddim.jobs.kept_precision(out) if self.precision == "auto" else None
        how = self._how(model, seeds) | {"precision": kept or self.precision}
        sampler = self._refused_early(model, how)
        settled = ddim.jobs.settle(
            self.batch_size, "never" if model.exported and self.compile == "auto" else self.compile, out=out,
            n=len(seeds), calls_an_image=sampler.calls, call=lambda rows: sampler.call([seeds[0]] * rows),
            device=model.device, share=share,
        )  # fmt: skip
        for note in settled.notes:
            print(note)
        made = self.sampler(model, **how, compiled=True) if settled.compiled else sampler
        own = {"model": self.model, "solver": self.solver, "eta": 1.0 if self.sigma_learned else self.eta,
               "sigma_hat": self.sigma_hat, "label": self.label, "batch": min(settled.batch, len(seeds))}  # fmt: skip
        known = {**made.recipe, **own, **({"precision": kept} if kept else {})}
        recipe = {name: known[name] for name in ORDER if name in known}
        layout = ddim.jobs.layout_of(out, len(seeds), self.shards)
        ddim.jobs.open_job(out, {**recipe, "seeds": self.seeds or f"{seeds[0]}-{seeds[-1]}", **layout.recipe()})
        crew, classes = ddim.jobs.crew_of(out), made.classes(seeds)
        with show.progress(len(share.of(seeds)), "images") as bar:
            for done in ddim.jobs.generate(
                lambda batch: made.sample(batch, batch_size=len(batch)).cpu(), seeds, out, recipe,
                batch_size=settled.batch, share=share, crew=crew, layout=layout, over=over,
                classes=None if classes is None else dict(zip(seeds, classes, strict=True)), names=self.names(model),
            ):  # fmt: skip
                bar(done)
        if not ddim.jobs.complete(seeds, out, layout):
            show.unfinished(share, crew, out)
            return
        print(f"{len(seeds)} images in {out}, overview {out / 'grid.png'}")
        if self.npz:
            print(ddim.jobs.write_npz(seeds, out, classes, layout))

    def _seeds(self) -> list[int]:
        if self.seeds is None:
            return self.counted()
        if self.n != 16 or self.seed != 0:
            raise Refused("give --seeds, or --count and --seed, not both")
        return ddim.process.parse_seeds(self.seeds)

    def _how(self, model: ddim.Model, seeds: list[int]) -> dict[str, Any]:
        noise = typed.noise(self.solver, self.eta, hat=self.sigma_hat, learned=self.sigma_learned)
        tau = None if self.tau is None else typed.times(self.tau, whole=model.process.discrete)
        label = self.label if self.label == "cycle" else self.classes(model, seeds)
        return {"steps": self.steps, "tau": tau, "label": label, **noise}

    def _refused_early(self, model: ddim.Model, how: dict[str, Any]) -> ddim.Sampler:
        """The sampler, composed and tried once: what cannot work is refused before a folder is made."""
        if model.picture_shape[0] not in (1, 3):
            raise Refused(f"a PNG holds 1 or 3 channels, this model makes {model.picture_shape[0]}; use Model.sample")
        if self.batch_size == "auto" and model.exported:
            raise Refused("nobody tells how much memory an exported network needs: give --batch-size a number")
        if self.compile == "always" and model.exported:
            self.sampler(model, **how, compiled=True)
        sampler = self.sampler(model, **how)
        sampler.rehearse()
        return sampler
