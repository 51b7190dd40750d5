"""A checkpoint's facts in words, and the probe on real images: what `ddim info` and `ddim import` tell."""

from __future__ import annotations

import math
from collections import Counter

from ddim.checkpoints import Checkpoint, Student, Verdict, clearly_below, denoising_error, probe_checkpoint
from ddim.cli.show import rows_of, table
from ddim.cli.typed import typed_size
from ddim.data import few_images
from ddim.pixels import Fit
from ddim.process import Schedule

IMAGES = 16
LEAST = 4  # pictures the probe must have


def described(k: Checkpoint) -> str:
    """Every fact of a checkpoint, one a line."""
    parameters = sum(p.numel() for p in k.network.parameters())
    rows = [
        ("source", k.source),
        ("family", k.family if k.family != "ddim" else f"ddim folder (from {k.meta.get('family', 'ddim')})"),
        ("weights", (f"{parameters:,} parameters, " if parameters else "") + f"sha256 {k.sha256[:16]}"),
        *_walked(k),
        ("prediction", _prediction(k)),
        ("DDPM's variance", _variance(k)),
        *_process(k),
        ("classes", _classes(k)),
        ("clipping of x0", _clipping(k)),
        ("the file's own walk", _walk(k)),
        *([] if k.student is None else [("student", _student(k.student))]),
    ]  # fmt: skip
    return rows_of([*rows, *(("note", note) for note in k.notes)])


def _walked(k: Checkpoint) -> list[tuple[str, str]]:
    made = k.picture_shape
    images = f"{' x '.join(map(str, made))}, numbers {k.data_range[0]:g} to {k.data_range[1]:g}"
    if k.autoencoder is None:
        return [("images", images)]
    parameters = sum(p.numel() for p in k.autoencoder.parameters())
    numbers = (k.autoencoder.scale.flatten().tolist(), k.autoencoder.shift.flatten().tolist())
    scale, shift = (", ".join(f"{v:.6g}" for v in own) for own in numbers)
    about = f"{k.autoencoder.kind}, {parameters:,} parameters, scale {scale}, shift {shift}"
    return [("images", images), ("latents", " x ".join(map(str, k.shape))), ("autoencoder", about)]


def _prediction(k: Checkpoint) -> str:
    said = f"{k.prediction}, sigma_data {k.data_std:g}" if k.prediction == "edm" else k.prediction
    return said + (" and a variance" if k.learned_variance else "")


def _process(k: Checkpoint) -> list[tuple[str, str]]:
    s = k.process
    if isinstance(s, Schedule):
        time = "t - 1" if k.time_scale == 1 else f"(t - 1) * {k.time_scale:g}"
        ends = f"alpha_bar from {float(s.alpha_bar[1]):.6g} to {float(s.alpha_bar[-1]):.4g}"
        return [("schedule", f"T = {s.T}, {ends}"), ("network's time", time)]
    first, last = s.at(s.first), s.at(s.T)
    ends = f"(signal, noise) from ({first.signal:.4g}, {first.noise:.4g}) to ({last.signal:.4g}, {last.noise:.4g})"
    shown = "x_t at unit variance" if k.unit_input else "x_t itself"
    shown = "x_t over the spread it has at t" if k.prediction == "edm" else shown
    return [("process", f"{s.name}, {ends}"), ("network's time", "t" if k.label is None else str(k.label)),
            ("network is shown", shown)]  # fmt: skip


def _classes(k: Checkpoint) -> str:
    if k.num_classes is None:
        return "none"
    null = "no null label" if k.null_label is None else f"null label {k.null_label}"
    names = f": {', '.join(k.labels[:8])}{', ..' if len(k.labels) > 8 else ''}" if k.labels else ""
    return f"{k.num_classes}, {null}{names}"


def _variance(k: Checkpoint) -> str:
    if k.variance:
        return f"{k.variance}, predicted: ddim sample and evaluate take it with --sigma-learned"
    if k.learned_variance:
        return "predicted, the file does not say as what, so dropped: ddim import --set variance_type=learned_range"
    return k.variance_type or "not told"


def _walk(k: Checkpoint) -> str:
    offset = f", offset {k.steps_offset}" if k.steps_offset else ""
    return f"--spacing diffusers: {k.spacing}{offset}{', stops at alpha_bar[1]' if k.ends_at else ''}"


def _student(s: Student) -> str:
    folded = "" if s.guidance == 1.0 else f", guidance {s.guidance:g} folded in"
    walk = f"{s.steps} {'step' if s.steps == 1 else 'steps'}, times {list(s.tau)}"
    return f"{s.kind}, {'up to ' if s.consistent else ''}{walk}{folded}; teacher sha256 {s.teacher[:16]}"


def _clipping(k: Checkpoint) -> str:
    if not k.clips:
        return "off"
    if k.thresholding:
        return f"dynamic threshold, quantile {k.threshold_quantile:g}, at most {k.threshold_maximum:g}; eps re-derived"
    return f"to {-k.clip_range:g}..{k.clip_range:g}, eps re-derived"


def checked(
    checkpoint: Checkpoint, data: str, fit: Fit = "crop", inner: tuple[int, int] | None = None, *, skip: bool = False,
    seen: Counter[tuple[int, int]] | None = None,
) -> Verdict:  # fmt: skip
    """The probe on a few images of DATA, spread evenly over it."""
    images = few_images(data, checkpoint.picture_shape, IMAGES, fit, inner, skip_unreadable=skip, seen=seen)
    return probe_checkpoint(checkpoint, images)


def bordered_better(checkpoint: Checkpoint, data: str, small: tuple[int, int], fit: Fit) -> str | None:
    """Small pictures enlarged, or in a black border: which of the two the network denoises better, where that is clear.

    None where it is not, and where DATA holds too few pictures to tell.
    """
    if checkpoint.autoencoder is not None:
        return None  # the error of latents says nothing of borders
    shape = checkpoint.picture_shape
    large, within = (few_images(data, shape, IMAGES, fit, inner, skip_unreadable=True) for inner in (None, small))
    if len(large) < LEAST:
        return None
    a, b = (denoising_error(checkpoint, images) for images in (large, within))
    told = (
        f"denoising error {math.exp(float(a.mean())):.3g} enlarged, {math.exp(float(b.mean())):.3g} in a black border"
    )
    if clearly_below(b, a):
        return f"the model knows these pictures better unenlarged ({told}): give --size {typed_size(small)}"
    return f"the model knows these pictures better enlarged ({told})" if clearly_below(a, b) else None


def reported(report: Verdict) -> str:
    """The probe's table and its verdict."""
    rows = [
        [r.axis, r.option, f"{r.error:.4g}", "as the file says" if r.said else "", "best" if r.best else ""]
        for r in report.rows
    ]
    head = f"denoising error of {report.images} real images under each reading (squared error of eps)"
    verdict = [f"warning: {w}" for w in report.warnings] or ["the file's own reading fits best"]
    return "\n".join([head, table(["axis", "reading", "error", "", ""], rows), *verdict])
