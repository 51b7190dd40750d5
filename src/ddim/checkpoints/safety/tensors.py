"""safetensors files: the reader checks every offset against the file's size, and nothing in them is code."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ddim.refused import Refused


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        Refused: truncated, or not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise Refused(f"{path} is not a whole safetensors file: {' '.join(str(error).split())}") from None
