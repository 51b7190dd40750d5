"""Files of weights in a diffusers folder: safetensors or .bin, whole or in shards."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ddim.checkpoints.families.diffusers.network import some
from ddim.checkpoints.safety import read_safetensors, read_torch
from ddim.files import read_json, sha256
from ddim.refused import Refused

STEM = "diffusion_pytorch_model"


def weights_of(place: Path) -> tuple[dict[str, Tensor], str, Path]:
    """The state dict, its hash, and the file (or index of files) it came from; safetensors before .bin."""
    for name in (f"{STEM}.safetensors", f"{STEM}.fp16.safetensors", f"{STEM}.bin", f"{STEM}.fp16.bin"):
        path = place / name
        if path.is_file():
            return _read(path), sha256(path), path
        index = place / f"{name}.index.json"
        if index.is_file():
            files = _shards(index)
            state: dict[str, Tensor] = {}
            for file in files:
                state |= _read(place / file)
            hashes = "".join(sha256(place / file) for file in files)
            return state, hashlib.sha256(hashes.encode()).hexdigest(), index
    raise Refused(f"{place} holds no weights: neither {STEM}.safetensors nor {STEM}.bin")


def refuse_others(told: Any, digest: str, weights: Path) -> None:
    if told not in (None, digest):
        raise Refused(
            f"{weights} is not what ddim.json says it is (sha256 {digest[:12]}, not {str(told)[:12]}): it is damaged, "
            "or somebody else's, or a training is just writing it; if it is what you want, take sha256 out of ddim.json"
        )


def _shards(index: Path) -> list[str]:
    """The files an index names, each of them in its own folder."""
    table = read_json(index).get("weight_map")
    if not isinstance(table, Mapping) or not table or not all(isinstance(f, str) for f in table.values()):
        raise Refused(f"{index}: weight_map must tell the file of each weight by name, got {reprlib.repr(table)}")
    files = sorted(set(table.values()))
    bad = [f for f in files if f in ("", "..") or Path(f).name != f]
    if bad:
        raise Refused(f"{index} names files outside its folder: {some(bad)}")
    return files


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    state = read_torch(path)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise Refused(f"{path} is not a state dict of tensors")
    return {str(k): v for k, v in state.items()}
