"""`ddim encode`: image files to one file of latents, with its certificate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ddim.cli.latent_common import image_files, labels_of, new_file, read_images
from ddim.cli.show import progress, table
from ddim.model import load
from ddim.refused import Refused
from ddim.uses import HEAD, Latents, law


@dataclass(frozen=True)
class Command:
    """Images to latents: from them `ddim decode` gives the images back. A clip has no inverse and is switched off."""

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, or folders of them."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the latents go: a new .safetensors file."""
    steps: int = 20
    """S, the number of steps."""
    spacing: str = "uniform"
    """Which steps; see `ddim sample --help`."""
    method: Literal["exact", "implicit", "bdia", "naive"] = "exact"
    """exact: every image comes back. implicit: exact where the solve converges. bdia: a coupled scheme, exact for
    every network at one call a step. naive: the published reversal, for comparison."""
    label: str | None = None
    """For class-conditional models: a class, or one an image "3,1,4"; without it the class is left open."""
    guidance: float = 1.0
    """Weight of classifier-free guidance."""
    batch_size: int = 32
    """Images at a time."""
    precision: Literal["fp32", "fp64"] = "fp32"
    """Number format of the network; the states are float64 in any case."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""

    def run(self) -> None:
        if self.out is None:
            raise Refused("say where the latents go: --out z.safetensors")
        if self.batch_size < 1:
            raise Refused(f"--batch-size must be at least 1, got {self.batch_size}")
        out, files = new_file(self.out), image_files(self.images)
        model = load(self.model, device=self.device)
        if model.checkpoint.clips:
            print("note: this model clips x0 when it samples; clipping has no inverse and is off here")
        labels = labels_of(model, self.label, len(files))
        parts = []
        with progress(len(files), "images") as bar:
            for i in range(0, len(files), self.batch_size):
                part = slice(i, i + self.batch_size)
                x = read_images(model, files[part])
                parts.append(
                    model.encode(
                        x.double() if self.precision == "fp64" else x,
                        steps=self.steps,
                        spacing=self.spacing,
                        method=self.method,
                        label=None if labels is None else labels[part],
                        guidance=self.guidance,
                        precision=self.precision,
                    )
                )
                bar(i + len(x))
        latents = replace(Latents.join(parts), names=tuple(f.stem for f in files))
        latents.save(out)
        self._tell(latents, files)

    def _tell(self, latents: Latents, files: list[Path]) -> None:
        print(latents.certificate)
        print(table(HEAD, [law(latents.x_T).row()]))
        if latents.unsolved:
            names = ", ".join(files[i].name for i in latents.unsolved[:8])
            more = f" and {len(latents.unsolved) - 8} more" if len(latents.unsolved) > 8 else ""
            then = "encoded by the coupled scheme" if self.method == "exact" else "their latents are not exact"
            print(f"not solved to {latents.recipe.tolerance:.0e} on every step, {then}: {names}{more}")
            if self.spacing == "uniform":
                print("--spacing quadratic or logsnr begins with smaller steps, which can be solved")
        print(f"latents of {len(latents)} images in {self.out}")
