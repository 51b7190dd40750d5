"""A checkpoint's facts in words, and the probe on real images: what `ddim info` and `ddim import` tell."""

from __future__ import annotations

from ddim.checkpoints import Checkpoint, Verdict, probe_checkpoint
from ddim.cli.show import table
from ddim.data import few_images

IMAGES = 16


def described(k: Checkpoint) -> str:
    """Every fact of a checkpoint, one a line."""
    c, h, w = k.shape
    s, parameters = k.schedule, sum(p.numel() for p in k.network.parameters())
    time = "t - 1" if k.time_scale == 1 else f"(t - 1) * {k.time_scale:g}"
    rows = [
        ("source", k.source),
        ("family", k.family if k.family != "ddim" else f"ddim folder (from {k.meta.get('family', 'ddim')})"),
        ("weights", (f"{parameters:,} parameters, " if parameters else "") + f"sha256 {k.sha256[:16]}"),
        ("images", f"{c} x {h} x {w}, numbers {k.data_range[0]:g} to {k.data_range[1]:g}"),
        ("prediction", k.prediction + (" and a variance, which DDIM does not use" if k.learned_variance else "")),
        ("schedule", f"T = {s.T}, alpha_bar from {float(s.alpha_bar[1]):.6g} to {float(s.alpha_bar[-1]):.4g}"),
        ("network's time", time),
        ("classes", _classes(k)),
        ("clipping of x0", _clipping(k)),
        ("the file's own walk", _walk(k)),
    ]  # fmt: skip
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    return "\n".join([*lines, *(f"{'note':<{width}}  {note}" for note in k.notes)])


def _classes(k: Checkpoint) -> str:
    if k.num_classes is None:
        return "none"
    null = "no null label" if k.null_label is None else f"null label {k.null_label}"
    names = f": {', '.join(k.labels[:8])}{', ..' if len(k.labels) > 8 else ''}" if k.labels else ""
    return f"{k.num_classes}, {null}{names}"


def _walk(k: Checkpoint) -> str:
    offset = f", offset {k.steps_offset}" if k.steps_offset else ""
    return f"--spacing diffusers: {k.spacing}{offset}{', stops at alpha_bar[1]' if k.ends_at else ''}"


def _clipping(k: Checkpoint) -> str:
    if not k.clips:
        return "off"
    if k.thresholding:
        return f"dynamic threshold, quantile {k.threshold_quantile:g}, at most {k.threshold_maximum:g}; eps re-derived"
    return f"to {-k.clip_range:g}..{k.clip_range:g}, eps re-derived"


def checked(checkpoint: Checkpoint, data: str) -> Verdict:
    """The probe on a few images of DATA, spread evenly over it."""
    return probe_checkpoint(checkpoint, few_images(data, checkpoint.picture_shape, IMAGES))


def reported(report: Verdict) -> str:
    """The probe's table and its verdict."""
    rows = [
        [r.axis, r.option, f"{r.error:.4g}", "as the file says" if r.said else "", "best" if r.best else ""]
        for r in report.rows
    ]
    head = f"denoising error of {report.images} real images under each reading (squared error of eps)"
    verdict = [f"warning: {w}" for w in report.warnings] or ["the file's own reading fits best"]
    return "\n".join([head, table(["axis", "reading", "error", "", ""], rows), *verdict])
