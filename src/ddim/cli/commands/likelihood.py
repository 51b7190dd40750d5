"""`ddim likelihood`: bits a dimension of real images, with what every part of their error comes to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import ddim
from ddim.cli import clustered, likely, options, pictures, show
from ddim.files import VERSION, write_text
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.data import Images
    from ddim.denoise import Denoiser


@options.command
class Command(options.OnDevice, options.Exactly, options.Batched, options.Labelled, options.Out, pictures.OfData,
              clustered.OnCluster, options.OfModel):  # fmt: skip
    """How likely are real images under a model? Bits a dimension along its flow, with an error budget of four parts;
    interrupted, the same command goes on.

    Levels are dequantised uniformly; the network is asked without clip and guidance.
    """

    out: Annotated[Path | None, tyro.conf.arg(metavar="REPORT")] = None
    """Folder for likelihood.csv (every image), likelihood.json and likelihood.png (the most and the least likely)."""
    n: Annotated[int, options.COUNT] = 1000
    """How many images: the first COUNT, or all there are."""
    tolerance: float = 1e-4
    """Largest error of a step of the flow; what it comes to is measured on the first images."""
    probes: int = 4
    """Vectors that estimate the trace, each as dear as a network call; 0 takes the exact one (small images)."""
    trace_error: float | None = None
    """Standard error of each image's estimate, in bits a dimension: --probes are doubled until they reach it."""
    draws: int = 2
    """Dequantisations of each image."""
    bits: int = 8
    """Of a level; fewer than 8 merge neighbouring levels (5: 32 levels)."""
    upside_down: bool = False
    """Score each image upside down too, and say which share is likelier upright."""
    label: str | None = None
    """For class-conditional models: a class, or "data" for those of the data; open without it."""
    seed: int = 0
    """Of dequantisation and probes."""
    batch_size: int = 16

    def run(self) -> None:
        out = self.place("REPORT")
        self.refuse_no_batch()
        how = self._scoring()
        share = ddim.jobs.share_of(os.environ)
        (model := self.load()).space.refuse_lossy("a likelihood")
        data, over = self.images(model), self.over(share, model)
        n = min(self.n, len(data))
        classes = self._classes(model, data, n)
        ddim.jobs.open_job(out, {
            "model": self.model, "weights": model.weights_hash, "reading": dict(model.reading), "n": n,
            "data": data.report.sha256, **vars(how), "label": self.label, "batch": self.batch_size,
            "precision": self.precision, "version": VERSION,
        })  # fmt: skip

        crew = ddim.jobs.crew_of(out)

        def told(places: list[int]) -> Denoiser:
            own = None if classes is None else model.labels([classes[place] for place in places], len(places))
            return model.denoiser(label=own, clip=False, precision=self.precision)

        with show.progress(len(range(share.rank, n, share.world)), "images") as bar:
            for done in ddim.jobs.score_images(
                told, model.space, data.pixels[:n], how, out, batch_size=self.batch_size, device=model.device,
                share=share, crew=crew, over=over,
            ):  # fmt: skip
                bar(done)
        rows = ddim.jobs.scored_rows(out, n, self.batch_size)
        if rows is None:
            show.unfinished(share, crew, out)
            return
        print(self._report(out, data, rows, classes))

    def _scoring(self) -> ddim.jobs.Scoring:
        if self.n < 2 or self.seed < 0 or self.probes < 0:
            raise Refused(
                f"--count is at least 2, --seed and --probes at least 0; got {self.n}, {self.seed}, {self.probes}"
            )
        if self.bits > 8:
            raise Refused(f"--bits is at most 8, which pictures are read with; got {self.bits}")
        return ddim.jobs.Scoring(
            self.tolerance, self.probes or None, self.draws, seed=self.seed, trace_error=self.trace_error,
            bits=self.bits, upside_down=self.upside_down,
        )  # fmt: skip

    def _classes(self, model: ddim.Model, data: Images, n: int) -> dict[int, int] | None:
        if self.label == "data" and data.labels is None:
            raise Refused(f"--label data: {self.data} has no labels")
        known = "" if data.labels is None else ",".join(map(str, data.labels[:n].tolist()))
        return self.classes(model, range(n), known if self.label == "data" else None)

    def _report(self, out: Path, data: Images, rows: list[dict[str, float]], classes: dict[int, int] | None) -> str:
        found, each = ddim.jobs.error_budget(rows), ddim.jobs.bits_by_image(rows)
        document: dict[str, Any] = {"n": len(each), **vars(found)}
        write_text(out / "likelihood.json", json.dumps(document, indent=1))
        label = {} if classes is None else classes
        lines = [f"{place},{label.get(place, '')},{bits:.6f}" for place, bits in sorted(each.items())]
        write_text(out / "likelihood.csv", "\n".join(["place,label,bits", *lines, ""]))
        likely.overview(out / "likelihood.png", data.pixels, each)
        places = ", ".join(str(out / f"likelihood.{kind}") for kind in ("csv", "json", "png"))
        return f"{likely.told(found, len(each), self.tolerance)}\n{places}"
