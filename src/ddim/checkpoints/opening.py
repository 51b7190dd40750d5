"""Where a model lies and who wrote it: a folder, a file of one of four programs, or a name on the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddim.checkpoints.families import READERS, is_folder, is_onnx_folder, load_folder, load_onnx_folder
from ddim.checkpoints.record import Checkpoint
from ddim.checkpoints.safety import read_safetensors, read_torch
from ddim.checkpoints.settings import read_settings
from ddim.files import sha256
from ddim.refused import Refused

FAMILIES = ("auto", "diffusers", *READERS)
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILES = ("model_index.json", "ddim.json", "*config.json", "diffusion_pytorch_model*")


def open_checkpoint(
    source: str | Path, *, family: str = "auto", config: Mapping[str, Any] | str | Path | None = None
) -> Checkpoint:
    """Read a model of any of the families.

    Args:
        source: a diffusers folder (ours included), a checkpoint file, or "owner/name" on the hub.
        family: "diffusers", "ermongroup", "openai", "lucidrains", or "auto": told by the names of the weights.
        config: the peer's own settings where the file does not hold them; a mapping, or a YAML or JSON file.

    Raises:
        OSError, Refused: nothing there, or not readable as a model; one line with the remedy.
    """
    if family not in FAMILIES:
        raise Refused(f"unknown family {family!r}; choose one of {', '.join(FAMILIES)}")
    settings = read_settings(config)
    path = Path(source)
    if path.is_dir():
        return _folder(path, family, settings)
    if path.is_file():
        return _file(path, family, settings)
    if HUB_NAME.fullmatch(str(source)) and family in ("auto", "diffusers"):
        return _folder(_download(str(source)), "diffusers", settings)
    raise FileNotFoundError(
        f"there is no model at {source}: no such folder or file, and no name on the hub (owner/name)"
    )


def _folder(path: Path, family: str, settings: dict[str, Any]) -> Checkpoint:
    if is_onnx_folder(path):
        if family not in ("auto", "diffusers") or settings:
            raise Refused(f"{path} was exported by ddim: give neither --family nor settings")
        return load_onnx_folder(path)
    if is_folder(path):
        if family not in ("auto", "diffusers"):
            raise Refused(f"{path} is a diffusers folder, not a file of {family}")
        return load_folder(path, settings)
    files = sorted(p.name for p in path.iterdir() if p.suffix in (".pt", ".pth", ".ckpt", ".bin", ".safetensors"))
    hint = f"; give one of its files: {', '.join(files[:5])}" if files else ""
    raise Refused(f"{path} is not a model folder (no unet/config.json){hint}")


def _file(path: Path, family: str, settings: dict[str, Any]) -> Checkpoint:
    if family == "diffusers" or path.name in ("config.json", "model_index.json"):
        raise Refused(f"{path} is a file; a diffusers model is a folder: give {path.parent}")
    value = read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)
    if family == "auto":
        found = [name for name, reader in READERS.items() if reader.is_this(value)]
        if len(found) != 1:
            raise Refused(f"{path} is readable, but its weights have no layout of {', '.join(READERS)}{_saw(value)}")
        family = found[0]
    parts = READERS[family].read(value, settings, str(path))
    checkpoint: Checkpoint = parts.checkpoint(family, path, sha256(path), settings)
    return checkpoint


def _saw(value: Any) -> str:
    if isinstance(value, Mapping):
        names = [str(k) for k in list(value)[:3]]
        unet = any("down_blocks." in str(k) for k in value)
        hint = "; it is the weights' file of a diffusers folder: give the folder" if unet else ""
        return f" (it holds {', '.join(names)}, ..){hint}"
    return f" (it holds a {type(value).__name__})"


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES) + [f"*/{f}" for f in HUB_FILES]))
    except RepositoryNotFoundError:
        raise Refused(f"there is no folder {name}, and no model {name} on the hub (or it is private)") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise OSError(
            f"there is no folder {name}, and the hub cannot be reached for a model of that name ({reason}); "
            "download it where there is a network and give the folder"
        ) from None
