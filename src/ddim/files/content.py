"""What is in files: text, JSON, tensors with words beside them, and the hashes of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddim.files.whole import whole_file
from ddim.refused import Refused
from ddim.stored import content_of, object_from_json

if TYPE_CHECKING:
    from torch import Tensor

VERSION = "0.1.0"  # ours, as every file that is written says


def write_text(path: str | Path, text: str, *, new: bool = False) -> Path:
    """The file with this text in UTF-8, whole or not there. `new`: see `whole_file`."""
    with whole_file(path, new=new) as partial:
        partial.write_bytes(text.encode())
    return Path(path)


def write_json(path: str | Path, value: Any, *, new: bool = False) -> Path:
    """The value as JSON, whole or not there. `new`: see `whole_file`.

    Raises:
        Refused: the value holds what JSON cannot, NaN too.
    """
    try:
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise Refused(f"{Path(path).name} cannot be written: {error}") from None
    return write_text(path, text, new=new)


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, new: bool = False
) -> Path:
    """A safetensors file of these tensors, with words beside them; whole or not there. `new`: see `whole_file`."""
    from safetensors.torch import save_file

    plain = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with whole_file(path, new=new) as partial:
        save_file(plain, partial, metadata=dict(metadata))
    return Path(path)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, on the CPU, and the words beside them.

    Raises:
        Refused: there is no such file, or it is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise Refused(f"there is no file {path}")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is not a mapping
            return tensors, dict(file.metadata() or {})
    except SafetensorError as error:
        raise Refused(f"{path} is not a safetensors file: {error}") from None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        Refused: no plain file, not JSON, not an object, or too large to be a configuration.
    """
    return object_from_json(content_of(path), str(path))


def sha256(path: Path) -> str:
    """The hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """A short hash of anything JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()


def weights_hash(state: Mapping[str, Any]) -> str:
    """sha256 of a state dict, in the order of its names.

    Raises:
        Refused: something in it is no tensor.
    """
    import torch

    found = hashlib.sha256()
    for name, value in sorted(state.items()):
        if not isinstance(value, torch.Tensor):
            raise Refused(f"{name} in the network's state_dict is a {type(value).__name__}: weights are tensors")
        found.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
