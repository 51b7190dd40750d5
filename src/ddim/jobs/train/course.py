"""What opens, follows and saves a run has to know of what is trained in it: a denoiser, an autoencoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

from PIL import Image
from torch import nn

from ddim.data import Images
from ddim.jobs.train.loop import BatchAt, Loss
from ddim.jobs.train.pace import Pace
from ddim.jobs.train.state import TrainState

M = TypeVar("M", bound=nn.Module)


class Course(ABC, Generic[M]):
    """A run of one kind: in which folder, at which pace, on which images and device."""

    run: Path
    recipe: Pace
    images: Images
    device: str

    @property
    @abstractmethod
    def remedy(self) -> str:
        """What to do where the run cannot be gone on with."""

    @abstractmethod
    def stored(self) -> dict[str, Any]:
        """Everything a resume must find unchanged; what decides the weights."""

    @abstractmethod
    def fresh(self) -> M:
        """The module before its first step."""

    def begin(self, state: TrainState[M]) -> None:
        """Give a fresh state the weights it begins with, where those are not the module's own."""

    @abstractmethod
    def batches(self) -> BatchAt: ...

    @abstractmethod
    def loss(self) -> Loss[Any]: ...

    @abstractmethod
    def preview(self, state: TrainState[M], precision: str) -> Image.Image:
        """The picture of this step, saved in previews/."""

    def measured(self, state: TrainState[M]) -> dict[str, float]:
        """What the log says at a checkpoint beside the loss."""
        return {}

    @abstractmethod
    def export(self, state: TrainState[M]) -> None:
        """RUN as a folder with the averaged weights."""
