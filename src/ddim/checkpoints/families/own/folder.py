"""A model folder for a module of the user's own: network.safetensors, and ddim.json for everything around it.

The module's program is in no file: it is built by whoever loads the folder, and must have the weights that were saved,
by name, shape, type and hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Never

from torch import Tensor, nn

from ddim.checkpoints.facts import OURS, WHOLE, checked, process_facts, process_in, refuse_gaps
from ddim.checkpoints.record import Checkpoint
from ddim.checkpoints.safety import read_safetensors
from ddim.files import VERSION, read_json, weights_hash, whole_folder, write_json, write_tensors
from ddim.nets import OwnNetwork
from ddim.refused import Refused
from ddim.stored import is_whole

WEIGHTS = "network.safetensors"
PLAIN = tuple(name for name in WHOLE if name != "shape")  # which may be any here, not only a picture's


def is_own_folder(path: Path) -> bool:
    """Whether `save_own_folder` made it."""
    return (path / WEIGHTS).is_file()


def save_own_folder(path: str | Path, checkpoint: Checkpoint, *, new: bool = True) -> None:
    """Write the folder whole, or nothing; a new one unless told otherwise.

    Raises:
        Refused: something is there where it must be new, whoever came first; the network is none of the user's own, or
            its state is not of tensors alone.
    """
    network = checkpoint.network
    if not isinstance(network, OwnNetwork):
        raise Refused(f"a {type(network).__name__} is no network of your own: it has a folder of another kind")
    state = {name: value.clone() for name, value in network.module.state_dict().items()}  # tied weights lie apart
    facts = {"shape": list(checkpoint.shape)} | {name: getattr(checkpoint, name) for name in PLAIN}
    if checkpoint.student is not None:
        facts["student"] = checkpoint.student.as_json()
    facts["notes"] = [note for note in facts["notes"] if not note.startswith("saved from")]
    about = {"ddim_version": VERSION, "network": kind(network.module), "sha256": weights_hash(state)}
    table = process_facts(checkpoint.process, vars(checkpoint) | {"time_label": checkpoint.label})
    with whole_folder(path, last=(OURS,), new=new) as folder:
        write_tensors(folder / WEIGHTS, state, {"format": "pt"})
        write_json(folder / OURS, dict(checkpoint.meta) | about | facts | table)


def without_network(path: Path, settings: Mapping[str, Any]) -> Never:
    """Say what the folder lacks to be a model."""
    name = _told(path).get("network", "module of your own")
    short = str(name).rpartition(".")[2]
    raise Refused(
        f"{path} holds the weights of a {name}, whose program is yours: in Python, ddim.load(folder, "
        f"network={short}(...)) with the module built as it was when it was saved"
    )


def load_own_folder(path: Path, network: nn.Module, settings: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read what `save_own_folder` wrote into a module of the same architecture.

    Args:
        network: gets the weights that were saved, in place.

    Raises:
        Refused: settings, for such a folder says everything itself; the module has other weights, by name, shape or
            type; ddim.json lacks something, or belongs to other weights.
    """
    if settings:
        raise Refused(f"{path} says everything itself: give no settings")
    if not isinstance(network, nn.Module):
        raise Refused(f"`network` is a torch.nn.Module, got {type(network).__name__}")
    meta = _told(path)
    where = str(path / OURS)
    shape = meta.get("shape")
    if not isinstance(shape, list) or not shape or not all(is_whole(n, 1) for n in shape):
        raise Refused(f"{where}: shape must be a list of whole numbers from 1, got {shape}")
    facts = checked({name: value for name, value in meta.items() if name != "shape"}, where)
    refuse_gaps(facts, (*PLAIN, "sha256"), where, "save the model again")
    state = read_safetensors(path / WEIGHTS)
    if weights_hash(state) != facts["sha256"]:
        raise Refused(f"{path / WEIGHTS} holds other weights than those {OURS} describes; save the model again")
    saved = str(meta.get("network"))
    _fill(network, state, saved, str(path))
    plain: dict[str, Any] = {name: facts[name] for name in PLAIN} | process_in(facts, where)
    if kind(network) != saved:
        plain["notes"] = (*plain["notes"], f"saved from a {saved}, loaded into a {kind(network)}")
    own = OwnNetwork(network, facts["num_classes"] is not None, facts["null_label"])
    return Checkpoint(
        network=own.eval(), shape=tuple(shape), family="own", source=str(path),
        sha256=str(facts["sha256"]), meta=meta, student=facts.get("student"), **plain,
    )  # fmt: skip


def kind(network: nn.Module) -> str:
    """The class of a module by its full name."""
    return f"{type(network).__module__}.{type(network).__qualname__}"


def _told(path: Path) -> dict[str, Any]:
    if not (path / OURS).is_file():
        raise Refused(f"{path} has {WEIGHTS} but no {OURS}, which says what the network is; save the model again")
    return read_json(path / OURS)


def _fill(network: nn.Module, state: Mapping[str, Tensor], saved: str, path: str) -> None:
    own = network.state_dict()
    odd = sorted(name for name in {*own, *state} if _looks(own.get(name)) != _looks(state.get(name)))
    if odd:
        raise Refused(
            f"{path} holds the weights of a {saved}, and this {type(network).__name__} has others: {len(odd)} differ, "
            f"first {odd[0]}: {_looks(state.get(odd[0]))} saved, {_looks(own.get(odd[0]))} here; "
            "build it as it was when it was saved"
        )
    network.load_state_dict(state)


def _looks(value: Tensor | None) -> str:
    return "none" if value is None else f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
