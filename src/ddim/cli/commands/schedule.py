"""`ddim schedule`: the exact steps that will be walked, before a single network call is spent."""

from __future__ import annotations

import math
from itertools import pairwise

import tyro

import ddim
from ddim.cli import options, show

HEAD = ("step", "t", "s", "alpha_bar_t", "alpha_bar_s", "SNR_t", "sigma(eta={eta:g})", "eta_max")


@options.command
class Command(options.Walked, options.OfModel):
    """Show each step (t, s), its levels, SNR and sigma, and check the two ends of the walk."""

    model: tyro.conf.Positional[str] = options.DEFAULT
    eta: float = 0.0
    """The eta whose sigma is shown."""

    def run(self) -> None:
        model = self.load()
        schedule, times = model.schedule, model.tau(self.steps, self.spacing)
        rows = []
        for i, (t, s) in enumerate(pairwise(times), 1):
            at_t, at_s = schedule.at(t), schedule.at(s)
            snr = math.inf if at_t.noise == 0 else at_t.alpha_bar / at_t.noise**2
            sigma, largest = ddim.process.sigma(at_t, at_s, self.eta), ddim.process.eta_max(at_t, at_s)
            rows.append([
                str(i), str(t), str(s), f"{at_t.alpha_bar:.6g}", f"{at_s.alpha_bar:.6g}", f"{snr:.4g}", f"{sigma:.6g}",
                f"{largest:.4g}",
            ])  # fmt: skip
        print(show.table([head.format(eta=self.eta) for head in HEAD], rows))
        start = schedule.at(times[0])
        asked = "" if len(times) - 1 == self.steps else f" ({self.steps} were asked for)"
        print(f"\n{len(times) - 1} steps{asked} of T = {schedule.T}, spacing {self.spacing}")
        print(f"start: x at t = {times[0]} holds {start.signal:.2%} of the signal; it is drawn as pure noise")
        end = schedule.at(times[-1])
        left = "the clean image (alpha_bar = 1, no noise left)"
        if times[-1]:
            left = f"t = {times[-1]}, where the file's own walk stops: noise of std {end.noise:.3g} is left in"
        print(f"end: the last network call is at t = {times[-2]}, then {left}")
