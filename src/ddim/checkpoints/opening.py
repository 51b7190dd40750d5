"""Where a model lies and who wrote it: a folder, a file, or a name on the hub, of one of the families."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ddim.checkpoints.families import (
    READERS,
    Family,
    Found,
    is_autoencoder,
    is_own_folder,
    load_autoencoder,
    load_own_folder,
)
from ddim.checkpoints.record import Checkpoint
from ddim.checkpoints.settings import read_settings
from ddim.nets import Autoencoder
from ddim.refused import Refused

HUB_NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@((?!.*\.\.)\w[\w./-]*))?")  # @ a commit, a tag or a branch
HUB_FILES = ("model_index.json", "ddim.json", "*config.json", "diffusion_pytorch_model*")
PATIENCE = 15.0  # seconds until the hub must have said something
OWN = "give it to ddim.Model.from_network(network, schedule, shape=..., prediction=...)"
WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def open_checkpoint(
    source: str | Path,
    *,
    family: str = "auto",
    config: Mapping[str, Any] | str | Path | None = None,
    network: nn.Module | None = None,
) -> Checkpoint:
    """Read a model of any of the families.

    Args:
        source: a diffusers folder (ours included), a checkpoint file, or on the hub "owner/name", or
            "owner/name@revision", which a commit pins.
        family: "diffusers", "ermongroup", "openai", "lucidrains", "edm", "scoresde", "onnx", "own", or "auto":
            told by what is there.
        config: the peer's own settings where the file does not hold them; a mapping, or a YAML or JSON file.
        network: the module whose weights were saved, for a folder around a network of the user's own.

    Raises:
        OSError, Refused: nothing there, or not readable as a model; one line with the remedy.
    """
    if family != "auto" and family not in READERS:
        raise Refused(f"unknown family {family!r}; choose one of {', '.join(('auto', *READERS))}")
    settings = read_settings(config)
    path = Path(source)
    if not path.exists():
        path = _fetched(source, "model" if network is None and family in ("auto", "diffusers") else None)
        family = "diffusers"
    if network is not None:
        return _finite(_own(path, network, settings))
    found = Found(path)
    reader = _told(found) if family == "auto" else READERS[family]
    return _finite(reader.read(found, settings))


def open_autoencoder(source: str | Path) -> Autoencoder:
    """The autoencoder of a folder (its own, or a model's) or of a name on the hub.

    Raises:
        OSError, Refused: nothing there, or not readable as an autoencoder.
    """
    path = Path(source)
    return load_autoencoder(path if path.exists() else _fetched(source, "autoencoder"))


def _fetched(source: str | Path, what: str | None) -> Path:
    """A folder of the hub; None where only one that is here will do."""
    named = HUB_NAME.fullmatch(str(source))
    if named is None or what is None:
        raise FileNotFoundError(
            f"there is no {what or 'model'} at {source}: no such folder or file, and no name on the hub (owner/name, "
            "owner/name@revision)"
        )
    return _download(named[1], named[2])


def _finite(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, if its weights are numbers."""
    weights = [(n, p) for n, p in checkpoint.network.named_parameters() if p.is_floating_point() and p.numel()]
    broken = [name for name, p in weights if not bool(torch.stack(p.detach().aminmax()).isfinite().all())]
    if broken:
        raise Refused(
            f"{checkpoint.source}: {len(broken)} of {len(weights)} weights hold NaN or infinity, first {broken[0]}: "
            "its training diverged, or the file is damaged; load an earlier one"
        )
    return checkpoint


def _own(path: Path, network: nn.Module, settings: Mapping[str, Any]) -> Checkpoint:
    if is_own_folder(path):
        return load_own_folder(path, network, settings)
    if path.is_dir():
        raise Refused(f"{path} holds no weights for a network of your own: load it without `network`")
    raise Refused(f"{path} is a file of weights: load them into the network yourself, and {OWN}")


def _told(found: Found) -> Family:
    """The family that says it is its own."""
    if found.path.name in ("config.json", "model_index.json"):
        raise Refused(f"{found.path} is a file; a diffusers model is a folder: give {found.path.parent}")
    told = [family for family in READERS.values() if family.is_this(found)]
    if found.is_folder and is_autoencoder(found.path):
        raise Refused(
            f"{found.path} is an autoencoder alone: it makes pictures of latents and knows no law of them; train a "
            f"model in its latents with `autoencoder` {found.path}"
        )
    if len(told) == 1:
        return told[0]
    if told:
        raise Refused(f"{found.path} may be of {' or '.join(f.name for f in told)}: say which by `family`")
    if not found.is_folder:
        names = ", ".join(name for name, family in READERS.items() if not family.of_folders)
        raise Refused(
            f"{found.path} is readable, but its weights have no layout of {names}{_saw(found.content)}; "
            f"if they are those of a network of your own, load them into it, and {OWN}"
        )
    files = sorted(p.name for p in found.path.iterdir() if p.suffix in WEIGHTS)
    hint = f"; give one of its files: {', '.join(files[:5])}" if files else ""
    raise Refused(f"{found.path} is not a model folder (no unet/config.json){hint}")


def _saw(value: Any) -> str:
    if isinstance(value, Mapping):
        names = [str(k) for k in list(value)[:3]]
        unet = any("down_blocks." in str(k) for k in value)
        hint = "; it is the weights' file of a diffusers folder: give the folder" if unet else ""
        return f" (it holds {', '.join(names)}, ..){hint}"
    return f" (it holds a {type(value).__name__})"


def _download(name: str, revision: str | None) -> Path:
    """The folder of a model on the hub, at that revision; where the hub says nothing, as it was fetched before."""
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    silent: tuple[type[Exception], ...] = (OSError, HfHubHTTPError, HFValidationError)
    for name_of in ("httpx", "httpx2"):  # whose errors are no OSError
        if importlib.util.find_spec(name_of) is not None:
            silent += (importlib.import_module(name_of).HTTPError,)
    wanted = list(HUB_FILES) + [f"*/{f}" for f in HUB_FILES]
    reason = None
    try:
        # Asked once for all: a silent server would be waited for with each file, and again.
        if not constants.HF_HUB_OFFLINE:
            HfApi().model_info(name, revision=revision, timeout=PATIENCE)
    except RevisionNotFoundError:
        raise Refused(
            f"the hub has {name}, but no revision {revision} of it; give a commit, a tag or a branch"
        ) from None
    except RepositoryNotFoundError:
        raise Refused(f"there is no folder {name}, and no model {name} on the hub (or it is private)") from None
    except silent as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
    try:
        offline = reason is not None
        return Path(snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=offline))
    except silent as error:
        reason = reason or " ".join(str(error).split())[:120] or type(error).__name__
        raise OSError(
            f"there is no folder {name}, and the hub cannot be reached for a model of that name ({reason}); "
            "download it where there is a network and give the folder"
        ) from None
