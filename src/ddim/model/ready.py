"""A checkpoint whose network is ready to run: on a device, in a number format, made once and kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ddim import engine
from ddim.checkpoints import Checkpoint, Student, guidance_key, handover_key, keep_tuned, save_tuned
from ddim.denoise import Interval, labels
from ddim.files import digest, weights_hash
from ddim.model.asked import labels_of
from ddim.model.saving import save_model
from ddim.process import Schedule, Time
from ddim.refused import Refused


class Ready:
    """A trained network, what is known of it, and where it runs; `Model` adds what it is for.

    Attributes:
        checkpoint: what was found and what was assumed; `ddim info` prints it.
        process, prediction, shape (C, H, W), num_classes, null_label, space: as the checkpoint says.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.process = checkpoint.process
        self.prediction = checkpoint.prediction
        self.shape = checkpoint.shape
        self.space = checkpoint.space
        self.num_classes = checkpoint.num_classes
        self.null_label = checkpoint.null_label
        self.device = torch.device("cpu")
        self._prepared: dict[tuple[str, bool], nn.Module] = {}
        self._loaded = engine.weight_sums(checkpoint.network)

    def __repr__(self) -> str:
        return f"Model({self.checkpoint.source}, shape={self.shape}, {self.prediction}, {self.process!r})"

    @property
    def schedule(self) -> Schedule:
        """The process, where it is a discrete one.

        Raises:
            Refused: it is continuous.
        """
        return self.checkpoint.schedule

    @property
    def most_steps(self) -> float:
        """The most steps a walk can have: T of a schedule, any number on a continuous process."""
        return float(self.process.T) if self.process.discrete else math.inf

    @property
    def weights_hash(self) -> str:
        """sha256 of the weights: of their file, or of themselves where they have been changed since."""
        network = self.checkpoint.network
        if self._loaded == engine.weight_sums(network):
            return self.checkpoint.sha256
        return weights_hash(network.state_dict())

    @property
    def identity(self) -> str:
        """A short hash of the weights as they are and of how they are read."""
        return digest([self.weights_hash, self.reading])

    @property
    def reading(self) -> Mapping[str, Any]:
        """What decides an image beside the weights: how the file was read."""
        return self.checkpoint.reading

    @property
    def clips(self) -> bool:
        """Whether x0 is clamped when it samples, unless `clip` says otherwise."""
        return self.checkpoint.clips

    @property
    def student(self) -> Student | None:
        """The few steps it stands for, where it is a student."""
        return self.checkpoint.student

    @property
    def exported(self) -> bool:
        """Whether another runtime runs the network, as it was exported."""
        return self.checkpoint.exported is not None

    @property
    def folder(self) -> Path | None:
        """Where `save_tau` keeps times; None if the model is no folder."""
        return self.checkpoint.folder

    @property
    def picture_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the pictures it makes.

        Raises:
            Refused: it makes something else.
        """
        return self.checkpoint.picture_shape

    def save(self, folder: str | Path) -> Path:
        """Write a model folder that `load` reads: a new or an empty one.

        A `UNet2DModel` becomes a diffusers folder. Of a network of your own the weights and the facts are kept:
        ``ddim.load(folder, network=MyNet(...))`` puts them into the module you build again.

        Raises:
            Refused: the folder exists; an exported network, which is copied as it is.
        """
        return save_model(Path(folder), self.checkpoint)

    def to(self, device: str | torch.device) -> Self:
        """Move the network; "auto" takes an accelerator when there is one."""
        picked = engine.pick_device(device)
        if picked != self.device:
            as_loaded = self._loaded == engine.weight_sums(self.checkpoint.network)
            self.checkpoint.network.to(picked)
            if self.checkpoint.autoencoder is not None:
                self.checkpoint.autoencoder.to(picked)
            self._loaded = engine.weight_sums(self.checkpoint.network) if as_loaded else []
        self.device = picked
        self._prepared.clear()
        return self

    def save_tau(self, times: Sequence[Any], solver: str) -> Path:
        """Keep times beside the weights: `tau(len(times) - 1, "tuned", solver=solver)` gives them back.

        Raises:
            Refused: the model is no folder.
        """
        return save_tuned(self._kept_in("times"), solver, tuple(times), self.checkpoint.identity)

    def save_guidance(
        self, weight: float, interval: Interval | None, *, solver: str, steps: int, guide: Ready | None = None
    ) -> Path:
        """Keep a weight and its interval: `sampler(guidance="tuned")` takes them for this solver, steps and guide.

        Raises:
            Refused: the model is no folder.
        """
        key = guidance_key(solver, steps, None if guide is None else guide.identity)
        found = {"guidance": weight, "interval": None if interval is None else list(interval)}
        return keep_tuned(self._kept_in("guidance"), key, found, self.checkpoint.identity)

    def save_handover(self, at: Time, early: Ready, *, solver: str, steps: int) -> Path:
        """Keep a hand-over: `sampler(early=early)` takes it for this solver and number of steps.

        Raises:
            Refused: the model is no folder.
        """
        key = handover_key(solver, steps, early.identity)
        return keep_tuned(self._kept_in("a hand-over"), key, {"at": at}, self.checkpoint.identity)

    def _kept_in(self, what: str) -> Path:
        if self.folder is None:
            raise Refused(f"{self.checkpoint.source} is no model folder to keep {what} in")
        return self.folder

    def labels(self, label: int | Sequence[int] | Tensor | None, n: int) -> Tensor | None:
        """One class an image, int64 (n,), or None for an unconditional network or the null label.

        Raises:
            Refused: a label where there are no classes, outside 0..K-1, or not one an image.
        """
        found = labels_of(label, n, self.num_classes, self.null_label)
        return None if found is None else found.to(self.device)

    def network(self, precision: str = "fp32", compiled: bool = False) -> nn.Module:
        """The network ready to run in that precision, through torch.compile or not; made anew when it has changed."""
        if self.checkpoint.exported is not None:
            return self.checkpoint.exported.checked(precision, self.device, compiled)
        key = engine.pick_precision(precision, self.device), compiled
        if key not in self._prepared:
            self._prepared[key] = engine.Current(self.checkpoint.network, *key)
        return self._prepared[key]

    def __getstate__(self) -> dict[str, Any]:
        """Without what was made ready: a copy, or another process, makes its own."""
        return vars(self) | {"_prepared": {}}

    def operations(self) -> int | None:
        """Floating-point operations of a network call, an image; None where another runtime does them."""
        if self.exported:
            return None
        told = labels(None if self.num_classes is None else torch.zeros(1, dtype=torch.int64, device=self.device))
        denoise, x = self.checkpoint.denoiser(), torch.zeros(1, *self.shape, device=self.device)
        return engine.operations(lambda: denoise(x, 1, told))

    def runs_in(self, precision: str) -> str:
        """The number format of a job that asks for this one: "auto" made definite; an exported network has its own."""
        exported = self.checkpoint.exported
        return engine.pick_precision(precision, self.device) if exported is None else exported.precision
