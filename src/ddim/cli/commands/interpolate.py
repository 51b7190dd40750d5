"""`ddim interpolate`: walk between two or more images or seeds; a strip, a film, or a grid of four corners."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

import ddim
from ddim.cli import options, pictures, results, show, steered, typed
from ddim.files import free_folder
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.cli.between import Between

MOST = 4096  # images at once: all of them are in one picture


@options.command
class Command(
    options.OnDevice, options.Quick, steered.Steered, options.Labelled, pictures.Fitted, options.Walked,
    options.Out, options.OfModel,
):  # fmt: skip
    """A path of images between seeds or real images (these are encoded first), through their latents."""

    between: Annotated[tuple[str, ...], tyro.conf.arg(metavar="A B [C ..]")]
    """Two or more points, each a seed or an image file; with --grid four corners."""
    frames: int = 11
    """Images along the whole path, both ends included."""
    USUAL: ClassVar[int] = 50
    path: Literal["slerp", "vp", "linear"] = "slerp"
    """slerp stays on the shell where latents live; vp is the variance-preserving line; linear is the plain one,
    which loses norm and washes images out: it is here to be seen."""
    compare: bool = False
    """One strip for each path, to see the difference."""
    grid: Annotated[str | None, tyro.conf.arg(metavar="RxC")] = None
    """A square of images between four corners (top left, top right, bottom left, bottom right), e.g. 7x7."""
    ddpm: bool = False
    """Also DDPM's stochastic interpolation between two images, mixed at half of T, as a second strip."""
    label: str | None = None
    """For class-conditional models: a class, or one a point: classes in between are mixed embeddings."""
    animation: Literal["webp", "gif", "none"] = "webp"
    """The film there and back."""
    seed: int = 0
    """Of the noise that --ddpm adds."""

    def run(self) -> None:
        out, shape = free_folder(self.place()), self._grid()
        model = self.load()
        precision = self.precision if all(word.isdecimal() for word in self.between) else self.to_come_back
        classes = self.classes(model, range(len(self.between)))

        def sampler(label: Any) -> ddim.Sampler:
            return self.sampler(model, steps=self.steps_of(model), label=label, clip=False, precision=precision)

        from ddim.cli.between import Between

        own = None if classes is None else list(classes.values())
        between = Between.of(model, sampler, self.between, own, lambda path: self.read(model, [path]))
        print(*between.notes, sep="\n", end="\n" * bool(between.notes))
        recipe: dict[str, Any] = {"model": self.model, "weights": model.weights_hash, "between": list(self.between)}
        recipe |= {k: getattr(self, k) for k in ("label", "guidance", "guide", "interval")}
        recipe |= {"steps": self.steps_of(model), "spacing": typed.spacing_of(self.spacing, model)}
        recipe |= {"precision": model.runs_in(precision)}
        if shape is None:
            self._strips(out, between, recipe)
            return
        words = {**recipe, "path": self.path, "grid": list(shape)}
        captions = between.corners(*shape)
        images = [between.square(*shape, self.path)]
        results.in_folder(
            out, lambda place: show.save_sheet(place / "square.png", images, shape[1], captions=captions, recipe=words)
        )
        print(f"{shape[0]} by {shape[1]} images in {out / 'square.png'}")

    def _strips(self, out: Path, between: Between, recipe: dict[str, Any]) -> None:
        names = list(ddim.uses.RULES) if self.compare else [self.path]
        strips = {}
        for name in names:
            strips[name], words = between.strip(self.frames, name)
            print(words)
        if self.ddpm:
            strips["DDPM"] = between.mixtures(self.frames, self.seed)
        main = strips[names[0]]
        told = {**recipe, "path": list(strips)}

        def write(place: Path) -> None:
            show.save_images(place, main, [f"{i:06d}" for i in range(len(main))], {**recipe, "path": names[0]})
            show.save_sheet(
                place / "strip.png", list(strips.values()), self.frames, rows=list(strips),
                heads=between.heads(self.frames), recipe=told,
            )  # fmt: skip
            if self.animation != "none":
                show.save_film(place / f"path.{self.animation}", main, milliseconds=90)

        results.in_folder(out, write)
        print(f"{self.frames} images in {out}, {out / 'strip.png'}")

    def _grid(self) -> tuple[int, int] | None:
        if len(self.between) < 2 or self.frames < 2:
            raise Refused(f"a path needs two points and two frames, got {len(self.between)} and {self.frames}")
        if self.frames > MOST:
            raise Refused(f"--frames is at most {MOST}, got {self.frames}: all of them are in one picture")
        if self.ddpm and len(self.between) != 2:
            raise Refused(f"--ddpm goes between two points, got {len(self.between)}")
        if self.grid is None:
            return None
        rows, cross, columns = self.grid.partition("x")
        whole = cross and rows.isdecimal() and columns.isdecimal() and len(self.grid) < 12
        if not whole or min(int(rows), int(columns)) < 2 or int(rows) * int(columns) > MOST:
            like = f"like 7x7, both at least 2, {MOST} images at most"
            raise Refused(f"--grid is written {like}, got {reprlib.repr(self.grid)}")
        if len(self.between) != 4:
            raise Refused(f"--grid needs four corners in --between, got {len(self.between)}")
        return int(rows), int(columns)
