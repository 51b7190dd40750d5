"""A model as a folder: that of its kind."""

from __future__ import annotations

from pathlib import Path

from ddim.checkpoints import Checkpoint, save_checkpoint, save_own_folder
from ddim.files import free_folder
from ddim.refused import Refused


def save_model(folder: Path, checkpoint: Checkpoint) -> Path:
    """See `Model.save`."""
    free_folder(folder)
    if checkpoint.exported is not None:
        raise Refused(f"{checkpoint.source} was exported for another runtime and is whole: copy the folder")
    if checkpoint.adapter is None:
        save_own_folder(folder, checkpoint)
    else:
        save_checkpoint(folder, checkpoint)
    return folder
