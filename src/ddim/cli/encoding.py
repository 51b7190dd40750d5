"""`ddim train-autoencoder` beside its options, and an autoencoder's facts in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ddim.cli.show import rows_of
from ddim.cli.training import under_bar
from ddim.jobs import AutoencoderPlan, AutoencoderRecipe, AutoencoderRun, Cadence, resolve_precision
from ddim.nets import AUTOENCODERS, Autoencoder

HELD_OUT = 1000


def recipe_of(asked: Mapping[str, Any], count: int, init: Autoencoder | None = None) -> AutoencoderRecipe:
    """What decides the weights, for so many images; of what is trained on, the kind, factor and channels it has."""
    names = {"clip": "grad_clip"}
    said = {name: asked[names.get(name, name)] for name in AutoencoderRecipe.__dataclass_fields__}
    said["precision"] = resolve_precision(said["precision"], asked["device"])
    if said["held_out"] is None:
        said["held_out"] = max(1, min(HELD_OUT, count // 10))
    if init is not None:
        kind = next((name for name, own in AUTOENCODERS.items() if own == init.kind), said["kind"])
        said |= {"kind": kind, "factor": init.factor, "latent_channels": init.channels}
    return AutoencoderRecipe(**said)


def trained(plan: AutoencoderPlan, cadence: Cadence, *, resume: bool) -> None:
    """Train under a bar; what the latents and the reconstructions are at the end."""
    run = AutoencoderRun(plan)
    latents = " x ".join(map(str, plan.latent_shape))
    what = f"{plan.recipe.kind} autoencoder, {' x '.join(map(str, plan.images.shape))} as {latents}"
    state = under_bar(
        run, cadence, "train-autoencoder", what, resume=resume,
        advice=lambda left: "this autoencoder is too much for this machine: take a smaller --width; ",
    )  # fmt: skip
    if state.accelerator.is_main_process and run.found is not None:
        told = numbers_told(run.found.numbers)
        print(f"{plan.run}: {state.step} steps, {len(plan.parts[1])} held-out images come back with {told}")
        print(f"now: ddim train {plan.images.report.source} --autoencoder {plan.run} --out RUN")


def numbers_told(numbers: Mapping[str, float]) -> str:
    """PSNR and distance in words, whatever else is there."""
    more = [f"{name} {value:.3g}" for name, value in numbers.items() if name.startswith(("FD", "FID"))]
    return ", ".join([f"PSNR {numbers['psnr']:.2f} dB", *more])


def described_autoencoder(made: Autoencoder, source: str) -> str:
    """Every fact of an autoencoder alone, one a line."""
    told = made.facts.get("provenance") or {}
    measured = made.facts.get("measured") or {}
    scale, shift = (", ".join(f"{v:.6g}" for v in own.flatten().tolist()) for own in (made.scale, made.shift))
    rows = [
        ("source", source),
        ("autoencoder", f"{made.kind}, {sum(p.numel() for p in made.parameters()):,} parameters"),
        ("weights", f"sha256 {made.sha256[:16]}"),
        ("pictures", f"{made.pictured} channels, sides multiples of {made.factor}"),
        ("latents", f"{made.channels} channels, sides 1/{made.factor} of the picture's"),
        ("scale and shift", f"{scale} and {shift}: a latent is (encoded - shift) scale"),
    ]
    if "psnr" in measured:
        rows.append(("reconstruction", f"{numbers_told(measured)}, of {told.get('held_out')} held-out images"))
    if told:
        rows.append(("trained", f"{told.get('steps')} steps on {told.get('images')} images of {told.get('data')}"))
    return rows_of([*rows, *(("note", note) for note in made.notes)])
