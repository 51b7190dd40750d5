"""`ddim interpolate`: walk between two or more images or seeds; a strip, a film, or a grid of four corners."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from torch import Tensor

from ddim import uses as interpolate
from ddim.cli.latent_common import enlargement, numbers, read_images, save_animation, save_images
from ddim.cli.show import new_folder
from ddim.model import Model, load
from ddim.pixels import grid, save_png, to_uint8
from ddim.process import noise
from ddim.refused import Refused
from ddim.solve import sample

BATCH = 64


@dataclass(frozen=True)
class Command:
    """A path of images between seeds or real images (these are encoded first), through their latents."""

    model: tyro.conf.Positional[str]
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    between: Annotated[tuple[str, ...], tyro.conf.arg(metavar="A B [C ..]")]
    """Two or more points, each a seed or an image file; with --grid four corners."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Where the images, strip.png and path.webp go: a new or empty folder."""
    frames: int = 11
    """Images along the whole path, both ends included."""
    steps: int = 50
    """S, the number of steps."""
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
    guidance: float = 1.0
    """Weight of classifier-free guidance."""
    spacing: str = "uniform"
    """Which steps; see `ddim sample --help`."""
    animation: Literal["webp", "gif", "none"] = "webp"
    """The film there and back."""
    seed: int = 0
    """Of the noise that --ddpm adds."""
    device: str = "auto"
    """cpu, cuda, ... or auto."""

    def run(self) -> None:
        if self.out is None:
            raise Refused("say where the images go: --out DIR")
        shape = self._grid()
        model = load(self.model, device=self.device)
        times = model.tau(self.steps, self.spacing)
        weights = self._weights(model)
        points, images = self._points(model, times, weights)
        out = new_folder(self.out)
        recipe = {"model": self.model, "weights": model.weights_hash, "between": list(self.between)}
        recipe |= {k: getattr(self, k) for k in ("steps", "spacing", "label", "guidance")}
        if shape:
            self._square(out, model, times, points, weights, shape, recipe)
        else:
            self._strips(out, model, times, points, images, weights, recipe)

    def _grid(self) -> tuple[int, int] | None:
        if len(self.between) < 2 or self.frames < 2:
            raise Refused(f"a path needs two points and two frames, got {len(self.between)} and {self.frames}")
        if self.ddpm and len(self.between) != 2:
            raise Refused(f"--ddpm goes between two points, got {len(self.between)}")
        if self.grid is None:
            return None
        rows, cross, columns = self.grid.partition("x")
        if not (cross and rows.isdecimal() and columns.isdecimal() and min(int(rows), int(columns)) >= 2):
            raise Refused(f"--grid is written like 7x7, both at least 2, got {self.grid!r}")
        if len(self.between) != 4:
            raise Refused(f"--grid needs four corners in --between, got {len(self.between)}")
        return int(rows), int(columns)

    def _weights(self, model: Model) -> Tensor | None:
        """For each point its class as weights over the embeddings (points, K + 1), or None."""
        model.labels(None if self.label is None else numbers(self.label, "--label"), len(self.between))
        if self.label is None:
            return None
        classes = model.labels(numbers(self.label, "--label"), len(self.between))
        if classes is None or model.num_classes is None:
            return None
        return torch.nn.functional.one_hot(classes, model.num_classes + (model.null_label is not None)).float()

    def _denoiser(self, model: Model, weights: Tensor | None) -> Any:
        return model.denoiser(label=weights, guidance=self.guidance, clip=False)

    def _points(
        self, model: Model, times: tuple[int, ...], weights: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The latent of every point, and its image: the file's own, or what the seed makes."""
        latents, images = [], []
        for i, word in enumerate(self.between):
            own = None if weights is None else weights[i : i + 1]
            if word.isdecimal():
                x_T = noise([int(word)], model.shape, device=model.device)
                images.append(self._made(model, times, x_T, own)[0])
            else:
                if not Path(word).exists():
                    raise Refused(f"{word} is neither a seed nor an image file")
                x = read_images(model, [Path(word)])
                label = None if own is None else own.argmax(1)
                z = model.encode(x, tau=times, method="implicit", label=label, guidance=self.guidance)
                x_T = z.x_T
                print(f"{word}: encoded, comes back at {float(z.certificate.psnr[0]):.1f} dB")
                images.append(x[0])
            latents.append(x_T[0])
        return latents, images

    def _made(self, model: Model, times: tuple[int, ...], x_T: Tensor, weights: Tensor | None) -> Tensor:
        parts = []
        for i in range(0, len(x_T), BATCH):
            own = None if weights is None else weights[i : i + BATCH]
            parts.append(sample(self._denoiser(model, own), x_T[i : i + BATCH], times))
        return model.space.decode(torch.cat(parts))

    def _strips(
        self, out: Path, model: Model, times: tuple[int, ...], points: list[Tensor], images: list[Tensor],
        weights: Tensor | None, recipe: dict[str, Any],
    ) -> None:  # fmt: skip
        names = list(interpolate.RULES) if self.compare else [self.path]
        mixed = None if weights is None else interpolate.path(list(weights), self.frames, interpolate.lerp)
        strips = {}
        for name in names:
            x_T = interpolate.path(points, self.frames, interpolate.rule_named(name))
            strips[name] = self._made(model, times, x_T, mixed)
            middle = x_T[len(x_T) // 2]
            print(f"{name}: norm of the middle latent {float(middle.norm()) / middle.numel() ** 0.5:.3f} of sqrt(d)")
        if self.ddpm:
            u = torch.linspace(0, 1, self.frames, device=model.device)
            lower = tuple(t for t in times if t <= model.schedule.T // 2)
            space, denoise = model.space, self._denoiser(model, mixed)
            first, last = (space.encode(x) for x in images)
            mixtures = interpolate.ddpm_interpolation(denoise, first, last, u, lower, seed=self.seed)
            strips["DDPM"] = space.decode(mixtures)
        main = strips[names[0]]
        save_images(out, main, [f"{i:06d}" for i in range(len(main))], {**recipe, "path": names[0]})
        labels = list(strips) if len(strips) > 1 else None
        pixels = to_uint8(torch.cat(list(strips.values())))
        text = {"ddim": json.dumps({**recipe, "path": list(strips)})}
        scale = enlargement(model)
        save_png(out / "strip.png", grid(pixels, self.frames, row_labels=labels, scale=scale), text)
        if self.animation != "none":
            save_animation(out / f"path.{self.animation}", main, scale=scale, milliseconds=90)
        print(f"{self.frames} images in {out}, {out / 'strip.png'}")

    def _square(
        self, out: Path, model: Model, times: tuple[int, ...], points: list[Tensor], weights: Tensor | None,
        shape: tuple[int, int], recipe: dict[str, Any],
    ) -> None:  # fmt: skip
        x_T = interpolate.path_grid(points, *shape, interpolate.rule_named(self.path)).flatten(0, 1)
        mixed = (
            None if weights is None else interpolate.path_grid(list(weights), *shape, interpolate.lerp).flatten(0, 1)
        )
        made = self._made(model, times, x_T, mixed)
        text = {"ddim": json.dumps({**recipe, "path": self.path, "grid": list(shape)})}
        save_png(out / "square.png", grid(to_uint8(made), shape[1], scale=enlargement(model)), text)
        print(f"{shape[0]} by {shape[1]} images in {out / 'square.png'}")
