"""What a family of files says of itself so that its models can be opened: which are its own, and how one is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ddim.checkpoints.record import Checkpoint
from ddim.checkpoints.safety import read_safetensors, read_torch
from ddim.refused import Refused


@dataclass(frozen=True)
class Found:
    """Something to be opened: a folder, or a file of weights."""

    path: Path

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @cached_property
    def content(self) -> Any:
        """What a file of weights holds; None for a folder.

        Raises:
            Refused: not readable as weights, or not without running its code.
        """
        if self.is_folder:
            return None
        return read_safetensors(self.path) if self.path.suffix == ".safetensors" else read_torch(self.path)


class Family(Protocol):
    """One program's models. A new family is a folder or a module here and one line in `READERS`."""

    @property
    def name(self) -> str: ...

    @property
    def of_folders(self) -> bool:
        """Whether its models are folders, not files."""
        ...

    def is_this(self, found: Found) -> bool:
        """Whether it is one of this family's; anything may come."""
        ...

    def read(self, found: Found, settings: Mapping[str, Any]) -> Checkpoint:
        """The model, under settings in the program's own names.

        Raises:
            Refused: it is not one of this family's, or not whole; says what is wrong.
        """
        ...


@dataclass(frozen=True)
class FolderFamily:
    """A program whose models are folders.

    Args:
        holds: whether a folder is one of its models.
        load: (folder, settings) -> checkpoint.
    """

    name: str
    holds: Callable[[Path], bool]
    load: Callable[[Path, Mapping[str, Any]], Checkpoint]
    of_folders: bool = field(default=True, init=False)

    def is_this(self, found: Found) -> bool:
        return found.is_folder and self.holds(found.path)

    def read(self, found: Found, settings: Mapping[str, Any]) -> Checkpoint:
        if not found.is_folder:
            raise Refused(f"{found.path} is a file; a {self.name} model is a folder: give {found.path.parent}")
        return self.load(found.path, settings)
