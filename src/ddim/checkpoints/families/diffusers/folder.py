"""A model folder: a diffusers pipeline folder plus ddim.json, written so that no reader ever sees half of one.

ddim.json holds what diffusers has no place for: the float64 table of the schedule (a beta list cannot give it
back bit for bit), the data's range, labels, where the weights came from, and their hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddim.checkpoints.facts import FACTS, ON_REAL_TIMES, OURS, SAMPLING, process_facts
from ddim.checkpoints.families.diffusers import others, scheduler
from ddim.checkpoints.families.diffusers.autoencoder import write_autoencoder
from ddim.checkpoints.families.diffusers.network import with_time_table
from ddim.checkpoints.families.diffusers.reader import shape_of
from ddim.checkpoints.families.diffusers.transformer import DIT
from ddim.checkpoints.families.diffusers.weights import STEM
from ddim.checkpoints.record import Checkpoint
from ddim.files import VERSION, sha256, whole_folder, write_json, write_tensors
from ddim.nets import Autoencoder, DiffusersNetwork
from ddim.process import LEARNED_VARIANCES, Process, Schedule, TimeLabel
from ddim.refused import Refused


def save_folder(
    path: str | Path,
    unet: nn.Module,
    process: Process,
    *,
    prediction: str,
    meta: Mapping[str, Any],
    dtype: torch.dtype | None = None,
    new: bool = False,
    autoencoder: Autoencoder | None = None,
) -> None:
    """Write a model folder that `load_folder` and diffusers' DDIMPipeline (with an autoencoder LDMPipeline) read.

    In a folder that exists (a run) only the model's own files are replaced.

    Args:
        path: the folder.
        unet: a diffusers UNet2DModel, or with an autoencoder a DiT (then DiTPipeline reads it).
        process: the one it was trained on; the scheduler class of diffusers for it is named where there is one.
        prediction: a name of `PARAMETERISATIONS`.
        meta: goes into ddim.json: shape, data_range, num_classes, null_label, labels, provenance, and anything
            else that JSON can hold; the sampling defaults of `Checkpoint` (clips, spacing, ...) where given; on a
            continuous process time_label, data_std and unit_input.
        dtype: of the stored weights; theirs by default.
        new: only an empty folder, or none, is filled, whoever came first.
        autoencoder: goes beside the network, where that walks in its latents.

    Raises:
        Refused: path is a file, or, where it must be new, holds something; meta holds what JSON cannot.
    """
    with whole_folder(path, last=(OURS, "model_index.json"), new=new) as folder:
        _write(folder, unet, process, prediction, meta, dtype, autoencoder)


def save_checkpoint(
    path: str | Path, checkpoint: Checkpoint, *, dtype: torch.dtype | None = None, new: bool = True
) -> None:
    """Write any checkpoint as a model folder, a new one unless told otherwise; see `save_folder`.

    A network whose time is (t - 1) * time_scale gets the sinusoids of its T times as a table
    (time_embedding_type "learned"), which every reader of diffusers folders understands.

    Raises:
        Refused: a network that is no `UNet2DModel`; something is there, where the folder must be new.
    """
    if checkpoint.adapter is None:
        raise Refused(f"a {type(checkpoint.network).__name__} has no place in a diffusers folder")
    network = checkpoint.adapter.unet
    facts = {
        "family": checkpoint.family if checkpoint.family != "ddim" else checkpoint.meta.get("family", "ddim"),
        "shape": list(checkpoint.shape),
        "data_range": list(checkpoint.data_range),
        "num_classes": checkpoint.num_classes,
        "null_label": checkpoint.null_label,
        "labels": None if checkpoint.labels is None else list(checkpoint.labels),
        "variance_type": checkpoint.variance_type,
        "notes": list(checkpoint.notes),
    } | {k: getattr(checkpoint, k) for k in SAMPLING}
    facts |= {"time_label": checkpoint.label, "data_std": checkpoint.data_std, "unit_input": checkpoint.unit_input}
    if checkpoint.student is not None:
        facts["student"] = checkpoint.student.as_json()
    if checkpoint.time_scale != 1.0:
        network = with_time_table(network, checkpoint.schedule.T, checkpoint.time_scale)
        facts["time_scale"] = checkpoint.time_scale
    meta = dict(checkpoint.meta) | facts
    save_folder(
        path, network, checkpoint.process, prediction=checkpoint.prediction, meta=meta, dtype=dtype, new=new,
        autoencoder=checkpoint.autoencoder,
    )  # fmt: skip


def _write(
    folder: Path,
    unet: nn.Module,
    process: Process,
    prediction: str,
    meta: Mapping[str, Any],
    dtype: torch.dtype | None,
    autoencoder: Autoencoder | None,
) -> None:
    import diffusers

    network = DiffusersNetwork(unet)
    part = "transformer" if autoencoder is not None and network.kind == DIT else "unet"
    weights = folder / part / f"{STEM}.safetensors"
    _put(weights, unet, dtype)
    version = {"_diffusers_version": diffusers.__version__}
    facts, table = _facts(network.config, meta), process_facts(process, meta)
    about = {"ddim_version": VERSION, "prediction": prediction, "sha256": sha256(weights)}
    # diffusers must not load what it would run wrongly
    known = network.is_plain or part == "transformer"
    index: dict[str, Any] = {part: ["diffusers" if known and isinstance(process, Schedule) else "ddim", network.kind]}
    config, variance = network.config, _variance(network.config, meta)
    pipeline = "DDPM" if variance else "DDIM"
    if autoencoder is not None:
        variance = None  # DiTPipeline splits it off before its scheduler, LDMPipeline never
        pipeline, place = ("DiT", "vae") if part == "transformer" else ("LDM", "vqvae")
        about["autoencoder"] = write_autoencoder(folder / place, autoencoder)
        shifted = bool((autoencoder.shift != 0).any()) or autoencoder.scale.numel() > 1  # which no pipeline knows
        index |= {place: ["ddim" if shifted else "diffusers", autoencoder.kind]} | _named(part, facts)
        config |= _one_side(config)
    own = {"_class_name": network.kind} | version | config
    files = {f"{part}/config.json": own, OURS: about | facts | about | table}
    said = _scheduler(process, prediction, facts, table, variance)
    if said is not None:
        (folder / "scheduler").mkdir()
        files["scheduler/scheduler_config.json"] = said
        index["scheduler"] = ["diffusers", said["_class_name"]]
    files["model_index.json"] = {"_class_name": f"{pipeline}Pipeline"} | version | index
    for name, content in files.items():
        write_json(folder / name, content)


def _facts(config: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """What ddim.json says beside the process."""
    usual = {"shape": list(shape_of(config, meta)), "data_range": [-1.0, 1.0]} | dict.fromkeys(FACTS[2:])
    return usual | {k: v for k, v in meta.items() if k not in (*ON_REAL_TIMES, "process", "alpha_bar")}


def _put(weights: Path, network: nn.Module, dtype: torch.dtype | None) -> None:
    weights.parent.mkdir()
    state = {k: v.detach().cpu().contiguous().to(_kept(v, dtype)) for k, v in network.state_dict().items()}
    write_tensors(weights, state, {"format": "pt"})


def _named(part: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The classes' names as DiTPipeline takes them."""
    names = facts.get("labels") if part == "transformer" else None
    return {"id2label": {str(k): name for k, name in enumerate(names)}} if names else {}


def _one_side(config: Mapping[str, Any]) -> dict[str, Any]:
    """sample_size as one number where latents are square: LDMPipeline knows no two."""
    sides = config.get("sample_size")
    return {"sample_size": sides[0]} if isinstance(sides, (list, tuple)) and len(set(sides)) == 1 else {}


def _variance(config: Mapping[str, Any], meta: Mapping[str, Any]) -> str | None:
    """The meaning of a learned variance: DDPMScheduler splits it off the network's output, DDIMScheduler cannot."""
    learned = config["out_channels"] != config["in_channels"]
    return meta["variance_type"] if learned and meta.get("variance_type") in LEARNED_VARIANCES else None


def _scheduler(
    process: Process, prediction: str, facts: Mapping[str, Any], table: Mapping[str, Any], variance: str | None
) -> dict[str, Any] | None:
    """The scheduler_config.json of diffusers' class for the process, if there is one."""
    if isinstance(process, Schedule):
        sampling = {k: facts[k] for k in SAMPLING if k in facts}
        return scheduler.write(process, prediction, variance=variance, **sampling)
    told = table.get("time_label")
    label = None if told is None else TimeLabel.from_json(told)
    low, high = facts["data_range"]
    return others.write(process, prediction, label, table.get("data_std", 0.5), (low, high))


def _kept(value: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and value.is_floating_point() else value.dtype
