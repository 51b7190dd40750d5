"""A model for diffusers: the same folder, without what its DDIMPipeline cannot run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ddim.checkpoints.families.diffusers.folder import save_checkpoint
from ddim.checkpoints.families.diffusers.network import filled_unet
from ddim.checkpoints.families.diffusers.transformer import DIT
from ddim.checkpoints.record import Checkpoint
from ddim.nets import Autoencoder, DiffusersNetwork
from ddim.refused import Refused


def export_checkpoint(
    path: str | Path, checkpoint: Checkpoint, *, dtype: torch.dtype | None = None, variance: bool = False
) -> tuple[str, ...]:
    """Write a folder that diffusers runs; returns what a user of it should know.

    Args:
        variance: keep a learned variance: DDPMPipeline samples with it, and DDIMPipeline stops at its 2C channels.
            Else it is left out, and DDIMPipeline runs the folder.

    Raises:
        Refused: a network no diffusers configuration expresses; a class-conditional one for its pipeline
            is written, with a note.
    """
    own = checkpoint.adapter
    of_latents = checkpoint.autoencoder is not None
    dit = of_latents and own is not None and own.kind == DIT
    if own is None or not (own.is_plain or dit):
        reason = next((n for n in checkpoint.notes if "ddim only" in n), "it is no UNet2DModel")
        raise Refused(f"diffusers cannot run this network: {reason}; ddim import writes it for ddim")
    notes = [] if checkpoint.autoencoder is None else _of_latents(checkpoint, checkpoint.autoencoder, dit)
    if variance and of_latents:
        raise Refused("`variance` is for models of pixels: DiTPipeline keeps it by itself, LDMPipeline cannot")
    if variance and checkpoint.variance is None:
        raise Refused("there is no learned variance to keep, or nobody knows what it means (the setting variance_type)")
    if variance:
        notes.append("with its learned variance it is run by diffusers' DDPMPipeline; DDIMPipeline cannot")
    elif checkpoint.learned_variance and not dit:
        c = checkpoint.shape[0]
        state = dict(own.unet.state_dict())
        state |= {k: state[k][:c] for k in ("conv_out.weight", "conv_out.bias")}
        smaller = filled_unet(own.config | {"out_channels": c}, state, str(path))
        network = DiffusersNetwork(smaller, checkpoint.null_label)
        checkpoint = replace(checkpoint, network=network, learned_variance=False, variance_type=None)
        notes.append("the learned variance was left out: DDIMPipeline and LDMPipeline cannot run it")
    if checkpoint.num_classes is not None and not dit:
        notes.append("the pipeline passes no class labels; call the UNet yourself with class_labels=")
    if checkpoint.clips and not variance:
        notes.append("diffusers clips x0 without re-deriving eps: pass use_clipped_model_output=True for our images")
    if checkpoint.data_range != (-1.0, 1.0):
        low, high = checkpoint.data_range
        notes.append(f"the network's images run from {low:g} to {high:g}; DDIMPipeline takes -1 to 1 for granted")
    save_checkpoint(path, checkpoint, dtype=dtype)
    return tuple(notes)


def _of_latents(checkpoint: Checkpoint, autoencoder: Autoencoder, dit: bool) -> list[str]:
    """What diffusers' pipelines of latents do not do as we do."""
    notes = []
    if bool((autoencoder.shift != 0).any()) or autoencoder.scale.numel() > 1:
        notes.append("its pipeline divides latents by scaling_factor and knows no shift: decode them yourself")
    if len(set(checkpoint.shape[1:])) > 1:
        notes.append("its pipeline makes square latents only: pass your own to the network")
    if dit and checkpoint.null_label not in (None, 1000):
        notes.append(f"DiTPipeline takes 1000 for the null label, which is {checkpoint.null_label}: guide by yourself")
    return notes
