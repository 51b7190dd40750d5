"""`ddim encode`: image files to one file of latents, with its certificate."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

import ddim
from ddim.cli import clustered, options, pictures, results, show, steered, typed
from ddim.files import digest, free_file, sha256

if TYPE_CHECKING:
    from torch import Tensor

    from ddim.uses import Latents


@options.command
class Command(
    options.OnDevice, options.Exactly, options.Batched, steered.Steered, options.Labelled, options.Walked, options.Out,
    pictures.Fitted, pictures.Skipping, pictures.Started, clustered.OnCluster, options.OfModel,
):  # fmt: skip
    """Images to latents: from them `ddim decode` gives the images back. A clip has no inverse and is switched off."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, or folders of them."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Where the latents go: a new .safetensors file."""
    method: Literal["exact", "implicit", "bdia", "naive"] = "exact"
    """exact: every image comes back, on finer times where those asked for cannot be solved. implicit: exact where the
    solve converges. bdia: a coupled scheme, exact for every network. naive: the published reversal, for comparison."""
    batch_size: int = 32

    def run(self) -> None:
        self.refuse_no_batch()
        share, out = ddim.jobs.share_of(os.environ), self.place("z.safetensors")
        files = self.readable(typed.image_files(self.images))
        if share.world > 1 and self._there(out, files):
            return
        free_file(out)
        model = self.load()
        if model.clips:
            print("note: this model clips x0 when it samples; clipping has no inverse and is off here")
        over = self.over(share, model)
        sampler = self.sampler(model, steps=self.steps_of(model), label=self.classes(model, range(len(files))))
        sizes, firsts = Counter[tuple[int, int]](), [str(i) for i in range(0, len(files), self.batch_size)]

        def read(first: str) -> tuple[int, Tensor]:
            x = self.read(model, files[int(first) : int(first) + self.batch_size], sizes)
            return int(first), x.double() if self.precision == "fp64" else x

        def encode(said: tuple[int, Tensor]) -> Latents:
            i, x = said
            return sampler.encode(x, self.method, start=self.begins, seeds=range(i, i + len(x)))

        pieces = ddim.jobs.Pieces(out, lambda: self._recipe(sampler, files), ddim.Latents.save, ddim.Latents.load)
        with show.progress(len(files), "images") as bar:
            for done, _ in enumerate(pieces.made(firsts, encode, share, over=over, item=read), 1):
                bar(min(done * self.batch_size, len(files)))
        parts = pieces.joined(firsts)
        if parts is None:
            show.unfinished(share, pieces.crew, out)
            return
        if share.world > 1 and self._there(out, files):
            pieces.clear()
            return
        latents = replace(ddim.Latents.join(parts), names=tuple(f.stem for f in files))
        results.in_file(out, latents.save)
        pieces.clear()
        self.tell(model.picture_shape, sizes)
        self._tell(latents, files, model.process.start(latents.recipe.tau[0]))

    def _there(self, out: Path, files: list[Path]) -> bool:
        """Whether latents of these images stand there already: other processes were faster; that is said."""
        if not out.is_file():
            return False
        found = ddim.Latents.load(out)
        same = found.names == tuple(f.stem for f in files) and found.recipe.method == self.method
        if same:
            print(f"latents of {len(files)} images are in {out}: others have made them")
        return same

    def _recipe(self, sampler: ddim.Sampler, files: list[Path]) -> dict[str, object]:
        images = digest([[f.name, sha256(f)] for f in files])
        return {**sampler.recipe, "images": images, "method": self.method, "fit": self.fit, "batch": self.batch_size,
                "start": self.start}  # fmt: skip

    def _tell(self, latents: Latents, files: list[Path], std: float) -> None:
        print(latents.said)
        print(show.table(ddim.uses.HEAD, [ddim.uses.law(latents.x_T, std).row()]))
        if latents.unsolved:
            names = ", ".join(files[i].name for i in latents.unsolved[:8])
            more = f" and {len(latents.unsolved) - 8} more" if len(latents.unsolved) > 8 else ""
            then = "encoded by the coupled scheme" if self.method == "exact" else "their latents are not exact"
            print(f"not solved to {latents.recipe.tolerance:.0e} on every step, {then}: {names}{more}")
            if self.method == "implicit":
                print("--method exact solves such images on finer times")
        print(f"latents of {len(latents)} images in {self.out}")
