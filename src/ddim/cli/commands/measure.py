"""`ddim measure`: images that exist already, whoever made them, by the measures of `ddim evaluate`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import ddim
from ddim.cli import options, show
from ddim.files import new_folder, write_json
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.data import Images

LEAST = 10  # images of each set: precision and its relatives look at the fifth neighbour


@options.command
class Command(options.OnDevice, options.Batched, options.Out, options.OfData):
    """How near are these images to real ones? Distance, KID, precision, recall and their relatives, beside as many
    real images that are not in the reference."""

    folder: tyro.conf.Positional[str]
    """The images to measure: a folder (of a sampling job too), a .parquet file, a hub id."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Also write measure.json there: all numbers, and what they depend on."""
    n: Annotated[int | None, options.COUNT] = None
    """How many images of FOLDER, and real ones beside them, are measured; default: as many as both have."""
    extractor: str = "mnist"
    """What features are compared: mnist, inception (FID), dinov2, pixels, or a TorchScript (.pt) or .pt2 file."""
    held_out: str | None = None
    """Other real images for the noise floor (a test set); default: COUNT of DATA, taken out of the reference."""
    reference: int = 50_000
    """Real images of the reference, at most."""

    def run(self) -> None:
        self.refuse_no_batch()
        if self.reference < LEAST:
            raise Refused(f"--reference must be at least {LEAST}, got {self.reference}")
        images = ddim.data.open_images(self.folder)
        own = self._alike(images, self.data)
        held = None if self.held_out is None else self._alike(images, self.held_out)
        n = self._count(images, own, held)
        data = ddim.jobs.RealSets.of(own, held, n, self.reference)
        look = ddim.metrics.extractor(self.extractor, ddim.engine.pick_device(self.device))
        if self.out is not None:
            new_folder(self.out)
        with tempfile.TemporaryDirectory() as kept, show.progress(len(data.reference) + 2 * n, "images") as bar:
            row, floor = ddim.jobs.measure_images(
                images, data, look, batch_size=self.batch_size, folder=Path(kept), tell=bar
            )
        name = ddim.metrics.distance_name(look.name)
        words = ddim.jobs.judged(row, floor, name)
        stamp: dict[str, Any] = {
            "images": self.folder, "images sha256": images.report.sha256, "distance": name, "n": n,
            **data.stamp(self.data, self.held_out or self.data), "extractor": ddim.jobs.stamp_of(look),
        }  # fmt: skip
        print(_table(name, row, floor), "", words, sep="\n")
        print(f"{n} of {len(images)} images, against {len(data.reference)} of {self.data}; extractor {look.name}")
        if self.out is not None:
            document = {"stamp": stamp, "answer": words, "row": row.as_dict(), "floor": floor.as_dict()}
            print(f"numbers: {write_json(self.out / 'measure.json', document)}")

    def _alike(self, images: Images, data: str) -> Images:
        """Real images in the shape of those that are measured."""
        c, h, w = images.report.shape
        return ddim.data.open_images(data, size=(h, w), channels=c)

    def _count(self, images: Images, own: Images, held: Images | None) -> int:
        most = min(len(images), len(own) // 2 if held is None else len(held))
        n = most if self.n is None else self.n
        if not LEAST <= n <= most:
            there = f"{len(images)} images and {len(own)} real ones" + ("" if held is None else f" and {len(held)}")
            asked = f"--count lies between {LEAST} and {most} here, got {n}" if most >= LEAST else "too few"
            raise Refused(f"{there}: {asked}; at least {LEAST} are measured, beside as many real ones")
        return n


def _table(name: str, row: Any, floor: Any) -> str:
    """The columns that say something of images alone."""
    head = ["images", *ddim.jobs.heads(name)[1:]]
    rows = [ddim.jobs.table_cells(one) for one in (row, floor)]
    kept = [i for i in range(len(head)) if any(cells[i] for cells in rows)]
    return show.table([head[i] for i in kept], [[cells[i] for i in kept] for cells in rows])
