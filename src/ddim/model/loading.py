"""`ddim.load(...)`: a bundled name, a folder, a hub id or a file becomes a `Model`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddim.checkpoints import is_autoencoder, open_autoencoder, open_checkpoint
from ddim.model.model import Model
from ddim.nets import Autoencoder

BUNDLED = Path(__file__).parent.parent / "bundled"
DEFAULT = "mnist"


def bundled_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in BUNDLED.glob("*/model_index.json"))


def load(
    source: str | Path = DEFAULT,
    *,
    family: str = "auto",
    config: Mapping[str, Any] | str | Path | None = None,
    device: str | torch.device = "cpu",
    network: nn.Module | None = None,
) -> Model:
    """A model from a bundled name, a folder, a hub id or a foreign checkpoint file.

    Args:
        source: "mnist", a model or run folder, "owner/name" or "owner/name@revision" on the hub, or a file
            such as ema.pt.
        family: "auto", "diffusers", "ermongroup", "openai", "lucidrains", "edm" or "scoresde".
        config: the peer's own settings (its names), where the file does not hold them; a mapping or a YAML/JSON file.
        network: the module, built again, for a folder that `Model.save` wrote of a network of your own.
        device: where the network goes; "auto" takes an accelerator when there is one.

    Raises:
        Refused, OSError: nothing there, or not readable as a model; one line with the remedy.
    """
    bundled = str(source) in bundled_names() and not (Path(source) / "model_index.json").exists()
    place = BUNDLED / str(source) if bundled else _place(source)
    return Model(open_checkpoint(place, family=family, config=config, network=network)).to(device)


def load_autoencoder(source: str | Path) -> Autoencoder:
    """An autoencoder alone: a bundled name ("cifar10-ae"), its folder or a model's, or a name on the hub.

    Raises:
        Refused, OSError: nothing there, or not readable as an autoencoder.
    """
    return open_autoencoder(_place(source))


def holds_autoencoder(source: str | Path) -> bool:
    """Whether that is an autoencoder alone, by a bundled name or in a folder."""
    return is_autoencoder(Path(_place(source)))


def _place(source: str | Path) -> str | Path:
    bundled = BUNDLED / str(source)
    return bundled if is_autoencoder(bundled) and not Path(source).exists() else source
