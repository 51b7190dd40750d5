"""`ddim train DATA --out RUN`: check the data, then train with checkpoints, previews and a bar."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro
from tqdm import tqdm

from ddim.data import Images, open_images
from ddim.jobs import Cadence, Plan, Precision, Recipe, ancestor_of, refuse_existing, resolve_precision, run, start
from ddim.model import load
from ddim.nets import PRESETS
from ddim.refused import Refused

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class Command:
    """Train a noise-prediction network on your own images; the run folder is the model."""

    data: tyro.conf.Positional[str]
    """A folder of images, a folder per class, a .parquet file, a hub id, or "digits"."""
    out: Path
    """The run folder: model, state/, previews/, log.jsonl, tensorboard/."""
    preset: str | None = None
    """The network: digits (8x8), mnist or grey32 (28x28, 32x32 grey), cifar10-small, cifar10, 64 or 128 (by size)."""
    init: str | None = None
    """Fine-tune: begin with the weights of this model (bundled name, run, folder or checkpoint), not random ones."""
    max_steps: int = 10000
    """Optimizer steps, counted from the beginning of the run."""
    batch_size: int = 64
    """Images of one optimizer step, over all processes."""
    accumulation: int = 1
    """Split each batch into this many parts, to save memory."""
    lr: float = 2e-4
    """Learning rate after the warm-up."""
    warmup: int = 500
    """Steps over which the learning rate rises from 0."""
    lr_decay_steps: int | None = None
    """Let the learning rate fall as a cosine to lr/100 at this step. Default: constant."""
    optimizer: Literal["adam", "adamw"] = "adamw"
    """Adam, or Adam with decoupled weight decay."""
    weight_decay: float = 0.0
    """Weight decay."""
    clip: float = 1.0
    """Largest gradient norm."""
    ema: float = 0.999
    """Decay of the averaged weights, warmed up as (1 + n)/(10 + n)."""
    prediction: Literal["eps", "x0", "v"] = "eps"
    """What the network learns to return."""
    min_snr_gamma: float | None = None
    """Weight the loss by min(SNR, gamma); 5 is usual. Default: all times alike."""
    schedule: Literal["linear", "scaled_linear", "cosine", "sigmoid"] = "linear"
    """The noise schedule."""
    timesteps: int = 1000
    """T, the number of diffusion steps of the schedule."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that x_T is pure noise; needs --prediction v or x0."""
    labels: Literal["auto", "use", "ignore"] = "auto"
    """Whether to learn the classes; auto does if at least two have images; ignore passes any label column over."""
    label_dropout: float = 0.1
    """How often a class is hidden, so that guidance can be used later."""
    size: str | None = None
    """H or HxW. Default: the size of the images."""
    fit: Literal["crop", "pad"] = "crop"
    """How images of other proportions are brought to --size."""
    channels: Literal[1, 3] | None = None
    """1 grey, 3 RGB. Default: 1 if every image is grey."""
    flip: bool = False
    """Mirror images left to right at random."""
    skip_unreadable: bool = False
    """Leave out files that cannot be read, instead of refusing."""
    seed: int = 0
    """Decides the initial weights, the order of the data and all noise."""
    precision: Precision = "auto"
    """auto, fp32, bf16 or fp16; auto is bf16 where the GPU or the CPU computes in it, else fp32. Weights stay fp32."""
    device: str = "auto"
    """auto, cpu, cuda, ..."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last two are kept."""
    preview_every: int = 1000
    """Steps between preview pictures; 0 for none."""
    log_every: int = 50
    """Steps between lines of log.jsonl."""
    resume: bool = False
    """Go on with the run in --out; options that decide the weights must be as they were (--init may be left out)."""

    def run(self) -> None:
        cadence = self._cadence()
        recipe = self._recipe()
        self._refuse_place()
        # A run that has a checkpoint needs the model it began from no more: that may be gone, or trained on.
        known = ancestor_of(self.out) if self.resume else None
        init = None if known is not None or self.init is None else load(self.init).checkpoint
        images = self._images()
        plan = Plan(
            self.out, images, self._preset(images), recipe, self._labelled(images),
            self._words(known), self.device, init, known,
        )  # fmt: skip
        with _memory(recipe, self.resume):
            self._train(plan, cadence)

    def _train(self, plan: Plan, cadence: Cadence) -> None:
        state = start(plan, self.max_steps, resume=self.resume)
        main = state.accelerator.is_main_process
        if main:
            parameters = sum(p.numel() for p in state.unwrapped.parameters())
            classes = f", {len(plan.images.class_names or ())} classes" if plan.labelled else ""
            print(
                f"preset {plan.preset}: {parameters / 1e6:.2f}M parameters{classes}, {plan.recipe.precision}",
                file=sys.stderr,
            )
        bar = tqdm(
            total=cadence.max_steps,
            initial=state.step,
            unit=" step",
            file=sys.stderr,
            disable=not (main and sys.stderr.isatty()),
        )
        with _signals() as caught, bar:
            for p in run(plan, state, cadence, lambda: bool(caught)):
                bar.set_postfix_str(f"loss {p.smooth_loss:.4f}, {p.images_per_second:.0f} images/s", refresh=False)
                bar.update()
        if caught:
            print(
                f"ddim: stopped at step {state.step}, checkpoint saved; go on with: {plan.command} --resume",
                file=sys.stderr,
            )
            sys.exit(128 + caught[0])
        if main:
            print(
                f"{self.out}: {state.step} steps, loss {state.smooth_loss:.4f}; now: ddim sample {self.out} --out DIR"
            )

    def _cadence(self) -> Cadence:
        if self.max_steps < 1:
            raise Refused(f"--max-steps must be at least 1, got {self.max_steps}")
        for name in ("checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise Refused(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        if self.preview_every < 0:
            raise Refused(f"--preview-every must be at least 0, got {self.preview_every}")
        return Cadence(self.max_steps, self.checkpoint_every, self.log_every, self.preview_every)

    def _recipe(self) -> Recipe:
        names = Recipe.__dataclass_fields__
        given: dict[str, Any] = {n: getattr(self, n) for n in names if n != "precision"}
        return Recipe(**given, precision=resolve_precision(self.precision, self.device))

    def _words(self, ancestor: Mapping[str, Any] | None) -> str:
        """The command that makes this run: what was given, without what does not matter to the result."""
        words = ["ddim", "train", self.data, "--out", str(self.out)]
        for f in dataclasses.fields(self)[2:]:
            value = getattr(self, f.name)
            if f.name == "init" and value is None and ancestor is not None:
                value = ancestor["source"]
            if value != f.default and f.name != "resume":
                flag = "--" + f.name.replace("_", "-")
                words += [flag] if value is True else [flag, str(value)]
        return shlex.join(words)

    def _refuse_place(self) -> None:
        data = Path(self.data)
        if data.is_dir() and self.out.resolve().is_relative_to(data.resolve()):
            raise Refused(
                f"--out {self.out} lies inside the images' folder {data}, so that its previews would become data; "
                "choose one outside"
            )
        if self.resume:
            return
        refuse_existing(self.out)
        above = next(p for p in (self.out, *self.out.absolute().parents) if p.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            raise Refused(
                f"{self.out} cannot be made: {above} is no folder that can be written to; choose another --out"
            )

    def _images(self) -> Images:
        bar: tqdm[Any] | None = None

        def progress(done: int, total: int) -> None:
            nonlocal bar
            bar = bar or tqdm(total=total, unit=" images", desc="data check", disable=not sys.stderr.isatty(), delay=2)
            bar.update(done - bar.n)

        try:
            images = open_images(
                self.data, size=_size(self.size), fit=self.fit, channels=self.channels,
                skip_unreadable=self.skip_unreadable, labels=self.labels != "ignore", progress=progress,
            )  # fmt: skip
        finally:
            if bar is not None:
                bar.close()
        for line in images.report.lines():
            print(line, file=sys.stderr)
        return images

    def _labelled(self, images: Images) -> bool:
        classes = images.report.classes or {}
        if self.labels == "use" and not classes:
            raise Refused(f"--labels use: {self.data} has no classes; use a folder per class or a label column")
        return sum(n > 0 for n in classes.values()) >= 2 if self.labels == "auto" else self.labels == "use"

    def _preset(self, images: Images) -> str:
        if self.preset is not None:
            if self.preset not in PRESETS:
                raise Refused(f"unknown --preset {self.preset!r}; choose one of {', '.join(PRESETS)}")
            return self.preset
        c, h, w = images.shape
        side = max(h, w)
        if side <= 16:
            return "digits"
        if side <= 32:
            return "mnist" if c == 1 else "cifar10-small"
        return "64" if side <= 64 else "128"


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    high, _, wide = text.lower().partition("x")
    if not high.isdecimal() or (wide and not wide.isdecimal()) or text.lower().endswith("x"):
        raise Refused(f'--size is written like "32" or "48x64" (height x width); cannot read {text!r}')
    size = int(high), int(wide or high)
    if min(size) < 1:
        raise Refused(f"--size must be at least 1x1, got {text!r}")
    return size


@contextmanager
def _memory(recipe: Recipe, resume: bool) -> Iterator[None]:
    """Out of memory, in whoever's words, as a mistake with its remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError; its CPU side has no name
        if isinstance(error, RuntimeError) and not any(words in str(error) for words in NO_MEMORY):
            raise
        kept = "; a run that has checkpoints keeps its options: that is a new --out" if resume else ""
        raise Refused(
            f"out of memory with --batch-size {recipe.batch_size} in {recipe.accumulation} part(s); "
            f"split it with a larger --accumulation (the same result), or give a smaller --batch-size{kept}"
        ) from None


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted, so that the step in hand is finished and saved; a second one interrupts."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def main() -> None:  # pragma: no cover -- `python -m ddim.cli.train_command` under torchrun
    from ddim.cli.main import main as start_command

    start_command(["train", *sys.argv[1:]])


if __name__ == "__main__":
    main()
