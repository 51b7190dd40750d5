"""A model folder whose network ONNX Runtime runs: network.onnx, and ddim.json for everything around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ddim.checkpoints.facts import OURS, WHOLE, checked, process_facts, process_in, refuse_gaps
from ddim.checkpoints.record import Checkpoint
from ddim.engine import OnnxNetwork
from ddim.files import VERSION, free_folder, read_json, sha256, whole_folder, write_json
from ddim.refused import Refused

NETWORK = "network.onnx"


def is_onnx_folder(path: Path) -> bool:
    """Whether `write_onnx_folder` made it."""
    return (path / NETWORK).is_file()


def write_onnx_folder(
    path: Path, checkpoint: Checkpoint, precision: str, make: Callable[[Path], None], about: Mapping[str, Any]
) -> None:
    """Write the folder whole, or nothing.

    Args:
        path: a new folder.
        make: writes the ONNX file at the path it is given.
        about: what else ddim.json should say of the export.

    Raises:
        Refused: path exists.
    """
    free_folder(path)
    with whole_folder(path, last=(OURS,), new=True) as folder:
        make(folder / NETWORK)
        facts = {k: getattr(checkpoint, k) for k in WHOLE} | {
            "ddim_version": VERSION,
            "runtime": "onnx",
            "precision": precision,
            "sha256": sha256(folder / NETWORK),
            "exported_from": {"source": checkpoint.source, "sha256": checkpoint.sha256},
            **about,
            **process_facts(checkpoint.process, vars(checkpoint) | {"time_label": checkpoint.label}),
            **({} if checkpoint.student is None else {"student": checkpoint.student.as_json()}),
        }
        write_json(folder / OURS, facts)


def load_onnx_folder(path: Path, settings: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read what `write_onnx_folder` wrote.

    Raises:
        Refused: settings, for such a folder says everything itself; ddim.json lacks something, or belongs to
            another network; onnxruntime is missing.
    """
    if settings:
        raise Refused(f"{path} was exported by ddim and says everything itself: give no settings")
    if not (path / OURS).is_file():
        raise Refused(f"{path} has {NETWORK} but no {OURS}, which says what it computes; export it again")
    meta = read_json(path / OURS)
    where = str(path / OURS)
    facts = checked(meta, where)
    refuse_gaps(facts, (*WHOLE, "precision", "sha256"), where, "export it again")
    digest = sha256(path / NETWORK)
    if digest != facts["sha256"]:
        raise Refused(f"{path / NETWORK} is not the network {OURS} describes; export it again")
    plain: dict[str, Any] = {k: facts[k] for k in WHOLE} | process_in(facts, where)
    note = f"runs in ONNX Runtime, in {facts['precision']}, on the CPU; exported from {facts.get('exported_from')}"
    plain["notes"] = (*plain["notes"], note)
    return Checkpoint(
        network=OnnxNetwork(path / NETWORK, str(facts["precision"]), facts["null_label"]).eval(),
        family="ddim",
        source=str(path),
        sha256=digest,
        meta=meta,
        student=facts.get("student"),
        **plain,
    )
