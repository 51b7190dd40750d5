"""`ddim schedule`: the exact steps that will be walked, before a single network call is spent."""

from __future__ import annotations

import math
from itertools import pairwise

import tyro

import ddim
from ddim.cli import options, show, typed

HEAD = ("step", "t", "s", "alpha_bar_t", "alpha_bar_s", "SNR_t", "sigma(eta={eta:g})", "eta_max")
REAL = ("step", "t", "s", "signal_t", "noise_t", "SNR_t", "sigma(eta={eta:g})", "eta_max")
"""The head on a continuous process, where signal^2 + noise^2 need not be 1."""


@options.command
class Command(options.Walked, options.OfModel):
    """Show each step (t, s), its levels, SNR and sigma, and check the two ends of the walk."""

    model: tyro.conf.Positional[str] = options.DEFAULT
    eta: float = 0.0
    """The eta whose sigma is shown."""

    def run(self) -> None:
        model = self.load()
        process, times = model.process, model.tau(self.steps_of(model), self.spacing)
        rows = []
        for i, (t, s) in enumerate(pairwise(times), 1):
            at_t, at_s = process.at(t), process.at(s)
            pair = (at_t.alpha_bar, at_s.alpha_bar) if process.discrete else at_t
            snr = math.inf if at_t.noise == 0 else at_t.alpha_bar / at_t.noise**2
            sigma, largest = ddim.process.sigma(at_t, at_s, self.eta), ddim.process.eta_max(at_t, at_s)
            rows.append([
                str(i), f"{t:.6g}", f"{s:.6g}", f"{pair[0]:.6g}", f"{pair[1]:.6g}", f"{snr:.4g}", f"{sigma:.6g}",
                f"{largest:.4g}",
            ])  # fmt: skip
        print(show.table([head.format(eta=self.eta) for head in (HEAD if process.discrete else REAL)], rows))
        start = process.at(times[0])
        asked = "" if self.steps in (None, len(times) - 1) else f" ({self.steps} were asked for)"
        of = f"of T = {process.T}" if process.discrete else f"on {process.name}"
        own = model.student is not None and times == model.tau()
        which = "its own times as a student" if own else f"spacing {typed.spacing_of(self.spacing, model)}"
        print(f"\n{len(times) - 1} steps{asked} {of}, {which}")
        held = f"holds {start.signal:.2%} of the signal"
        if not process.discrete:
            held = f"has noise/signal = {start.noise / start.signal if start.signal else math.inf:.4g}"
        print(f"start: x at t = {times[0]} {held}; it is drawn as pure noise")
        end = process.at(times[-1])
        left = "the clean image (alpha_bar = 1, no noise left)"
        if times[-1]:
            left = f"t = {times[-1]}, where the file's own walk stops: noise of std {end.noise:.3g} is left in"
        print(f"end: the last network call is at t = {times[-2]}, then {left}")
