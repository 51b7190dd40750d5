"""`ddim measure`: images that exist already, whoever made them, by the measures of `ddim evaluate`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

import ddim
from ddim.cli import options, pictures, results, show
from ddim.files import free_folder, write_json
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.data import Images

LEAST = 10  # images of each set: precision and its relatives look at the fifth neighbour


@options.command
class Command(options.OnDevice, options.Batched, options.Out, pictures.Compared):
    """How near are these images to real ones? Distance, KID, precision, recall and their relatives, beside as many
    real images that are not in the reference."""

    folder: tyro.conf.Positional[str]
    """The images to measure: a folder (of a sampling job too), a .parquet file, a hub id."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Also write measure.json there: all numbers, and what they depend on."""
    n: Annotated[int | None, options.COUNT] = None
    """How many images of FOLDER, and real ones beside them, are measured; default: as many as both have."""

    def run(self) -> None:
        self.refuse_no_batch()
        if self.out is not None:
            free_folder(self.out)
        images = ddim.data.open_images(self.folder, skip_unreadable=self.skip_unreadable)
        own = self.opened(images.shape)
        held = None if self.held_out is None else self.opened(images.shape, self.held_out)
        n = self._count(images, own, held)
        data = ddim.jobs.RealSets.of(own, held, n, self.reference)
        look = self.look(images.shape[0], ddim.engine.pick_device(self.device))
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
            results.in_folder(self.out, lambda place: write_json(place / "measure.json", document))
            print(f"numbers: {self.out / 'measure.json'}")

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
