"""A run that begins from a trained model: its weights, if it is of the same kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ddim.jobs.train.recipe import Recipe
from ddim.jobs.train.state import TrainState
from ddim.nets import Autoencoder, DiffusersNetwork, Ema
from ddim.refused import Refused

if TYPE_CHECKING:
    from ddim.checkpoints import Checkpoint

FREE = ("sample_size", "dropout", "num_class_embeds")  # what does not change the network, or shows in its weights


def begin_from(
    init: Checkpoint, state: TrainState[DiffusersNetwork], recipe: Recipe, autoencoder: Autoencoder | None = None
) -> None:
    """Give a new run the weights of a trained model, and its average the same: fine-tuning.

    Raises:
        Refused: that model predicts something else, has another schedule, range or clock, or another
            network; named.
    """
    if len({None if made is None else made.identity for made in (init.autoencoder, autoencoder)}) > 1:
        raise Refused(f"`init` {init.source} walks in another space than this run: pixels, or other latents")
    if init.prediction != recipe.prediction:
        raise Refused(
            f"`init` {init.source} predicts {init.prediction}, this run {recipe.prediction}; "
            f"give `prediction` {init.prediction}"
        )
    if init.process != recipe.noise_process():
        its = "its `schedule`" if init.process.discrete else f"`process` {init.process.name.split('(')[0]}"
        raise Refused(f"`init` {init.source} was trained on another noise schedule or process; give {its}")
    if (init.label, init.data_std, init.unit_input) != (recipe.time_label, recipe.data_std, recipe.unit_input):
        raise Refused(f"`init` {init.source} is told time, or shown x_t, otherwise than this run's network would be")
    if init.data_range != (-1.0, 1.0) or init.time_scale != 1.0:
        raise Refused(
            f"`init` {init.source} was trained on images in {list(init.data_range)} and times scaled by "
            f"{init.time_scale:g}, this run on [-1, 1] and 1; such a model cannot be trained on here"
        )
    own = state.unwrapped.state_dict()
    found = init.network.state_dict()
    odd = sorted(k for k in {*own, *found} if k not in own or k not in found or own[k].shape != found[k].shape)
    if odd:
        raise Refused(
            f"`init` {init.source} has another network than this run: {len(odd)} weights differ in name or shape, "
            f"first {odd[0]}; give the preset, size, channels and classes it was trained with"
        )
    differs = _unlike(init.config, state.unwrapped.config)
    if differs:
        raise Refused(
            f"`init` {init.source} has another network than this run, with weights of the same shapes: {differs}; "
            "give the preset it was trained with"
        )
    state.unwrapped.load_state_dict(found)
    state.ema = Ema(state.unwrapped, recipe.ema)


def _unlike(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str | None:
    """The first setting, in words, in which two networks compute differently though their weights may fit."""
    for key in dict.fromkeys([*ours, *theirs]):
        if key in FREE:
            continue
        a, b = (list(v) if isinstance(v, list | tuple) else v for v in (theirs.get(key), ours.get(key)))
        if a != b:
            return f"{key} is {a} there and {b} here"
    return None
