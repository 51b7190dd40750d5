"""Reading diffusers' folders: pipelines of DDPM, DDIM, LDM and DiT, bare networks, our own (which add ddim.json)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddim.checkpoints.facts import (
    FACTS,
    ON_REAL_TIMES,
    OURS,
    SAMPLING,
    checked,
    classes,
    labels,
)
from ddim.checkpoints.families.diffusers import network as build
from ddim.checkpoints.families.diffusers import others, scheduler
from ddim.checkpoints.families.diffusers.autoencoder import PLACES, autoencoder_in
from ddim.checkpoints.families.diffusers.scheduling import range_of, sampling_of
from ddim.checkpoints.families.diffusers.transformer import BEFORE, DIT, as_dit, class_facts, classes_of, in_our_words
from ddim.checkpoints.families.diffusers.weights import refuse_others, weights_of
from ddim.checkpoints.record import Checkpoint
from ddim.checkpoints.settings import MAX_SIDE, known_only, size, whole
from ddim.files import read_json
from ddim.nets import DiffusersNetwork, LucidrainsUnet, ScoreUnet
from ddim.refused import Refused

FILES = ("unet/config.json", "transformer/config.json", "config.json", "model_index.json")


def is_folder(path: Path) -> bool:
    """Whether a diffusers network lies there: unet/config.json, or config.json itself."""
    return any((path / name).is_file() for name in FILES)


def load_folder(path: str | Path, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read a diffusers pipeline folder, a bare UNet2DModel folder, or one that `save_folder` wrote.

    Args:
        path: the folder.
        config: settings that replace the files', under their names there: of scheduler_config.json, of the
            network's config.json, or of ddim.json (shape, data_range, num_classes, null_label, labels).

    Raises:
        OSError, Refused: a file is missing or not what it should be; one line that names it.
    """
    folder = Path(path)
    _check_index(folder)
    place = _network_in(folder)
    for_network, for_scheduler, for_facts = _split(config or {})
    net_file, our_file = place / "config.json", folder / OURS
    net_config = as_dit(read_json(net_file) | for_network, str(net_file))
    if net_config.get("_class_name") == DIT:
        net_config = in_our_words(net_config, str(net_file))
    told = read_json(our_file) if our_file.is_file() else {}
    facts, meta = checked(told, str(our_file)) | checked(for_facts, "the settings given"), told | for_facts
    notes: list[str] = []
    said = sampling_of(folder, for_scheduler, facts, notes)
    state, digest, weights = weights_of(place)
    refuse_others(facts.get("sha256"), digest, weights)
    shape = shape_of(net_config, facts, str(net_file))
    about = str(our_file if our_file.is_file() else folder)
    facts |= class_facts(net_config, facts, folder / "model_index.json")
    num_classes, null_label = classes(facts, _embeddings(net_config, str(net_file)), about, notes)
    network = build.filled_unet(net_config, state, str(net_file), str(weights))
    autoencoder = autoencoder_in(folder, shape, facts, notes)
    return Checkpoint(
        network=DiffusersNetwork(network, null_label).eval(),
        shape=shape,
        family="ddim" if meta else "diffusers",
        source=str(folder),
        sha256=digest,
        num_classes=num_classes,
        null_label=null_label,
        labels=labels(facts, num_classes, about),
        learned_variance=_learned_variance(net_config, str(net_file)),
        spacing=said.spacing if "timestep_spacing" in for_scheduler else facts.get("spacing") or said.spacing,
        variance_type=(None if "variance_type" in for_scheduler else facts.get("variance_type")) or said.variance_type,
        data_range=range_of(facts, said, notes) if autoencoder is None else (-1.0, 1.0),
        autoencoder=autoencoder,
        notes=(*(facts.get("notes") or ()), *said.notes, *notes),
        meta=meta,
        student=facts.get("student"),
        **_said(said),
    )


def _network_in(folder: Path) -> Path:
    place = next((folder / name for name in ("unet", "transformer") if (folder / name).is_dir()), folder)
    if not (place / "config.json").is_file():
        raise Refused(f"{folder} has no unet/config.json, so it is not a diffusers model folder")
    return place


def _check_index(folder: Path) -> None:
    if not (folder / "model_index.json").is_file():
        return
    parts = {k: v for k, v in read_json(folder / "model_index.json").items() if isinstance(v, list) and any(v)}
    network = parts.get("unet", parts.get("transformer", [None, None]))[-1]
    if network not in ("UNet2DModel", DIT, BEFORE, LucidrainsUnet.__name__, ScoreUnet.__name__):
        raise Refused(f"{folder}: its network is {network}, but only UNet2DModel and {DIT} are told of classes alone")
    others = sorted(set(parts) - {"unet", "transformer", "scheduler", *PLACES})
    if others:
        raise Refused(f"{folder} is a pipeline with {', '.join(others)}: told by more than classes, and not supported")
    missing = [name for name in PLACES if name in parts and not (folder / name).is_dir()]
    if missing:
        raise Refused(f"{folder} lacks its autoencoder, the folder {missing[0]}: copy the whole model")


def _split(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    from diffusers import UNet2DModel

    network = set(inspect.signature(UNet2DModel.__init__).parameters) - {"self"}
    parts: tuple[dict[str, Any], ...] = ({}, {}, {})
    for key, value in config.items():
        if key in scheduler.READ or key in others.READ or key == "_class_name":
            parts[1][key] = value
        elif key in FACTS:
            parts[2][key] = value
        elif key in network:
            parts[0][key] = value
        else:
            names = (*network, *scheduler.READ, *others.READ, *FACTS)
            known_only(
                (key,), names, "the settings given", "setting of a diffusers network, its scheduler or ddim.json"
            )
    return parts[0], parts[1], parts[2]


def shape_of(
    config: Mapping[str, Any], facts: Mapping[str, Any], where: str = "the network's config"
) -> tuple[int, int, int]:
    """(C, H, W) of one image: the facts' shape, or in_channels and sample_size of the network's config."""
    channels = whole(config, "in_channels", 3, MAX_SIDE, where=where)
    if facts.get("shape"):
        c, h, w = facts["shape"]
        if c != channels:
            raise Refused(f"ddim.json says {c} channels, but the network of {where} takes {channels}")
        return c, h, w
    sides = size(config, "sample_size", where=where)
    if sides is None:
        raise Refused(f"{where} has no sample_size; give it: `set` sample_size=<side>")
    return (channels, *sides)


def _learned_variance(config: Mapping[str, Any], where: str) -> bool:
    c, out = (whole(config, name, 3, MAX_SIDE, where=where) for name in ("in_channels", "out_channels"))
    if out not in (c, 2 * c):
        raise Refused(
            f"{where}: the network takes {c} channels and returns {out}: neither {c} nor {2 * c} (learned variance)"
        )
    return out != c


def _embeddings(config: Mapping[str, Any], where: str) -> int | None:
    if config.get("_class_name") == DIT:
        return classes_of(config)
    if config.get("num_class_embeds") is None:
        return None
    return whole(config, "num_class_embeds", 1, where=where)


def _said(said: Any) -> dict[str, Any]:
    """What the scheduler's file says, but for the spacing."""
    return {k: getattr(said, k) for k in (*SAMPLING, *ON_REAL_TIMES, "process", "prediction") if k != "spacing"}
