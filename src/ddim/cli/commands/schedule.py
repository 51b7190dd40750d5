"""`ddim schedule`: the exact steps that will be walked, before a single network call is spent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import tyro

from ddim.cli.show import table
from ddim.model import DEFAULT, load
from ddim.process import eta_max, sigma


@dataclass(frozen=True)
class Command:
    """Show each step (t, s), its levels, SNR and sigma, and check the two ends of the walk."""

    model: tyro.conf.Positional[str] = DEFAULT
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    steps: int = 20
    """S, the number of steps, 1 to T."""
    spacing: str = "uniform"
    """uniform, quadratic, logsnr, trailing, leading, linspace, paper-linear, ...; see ddim sample --help."""
    eta: float = 0.0
    """The eta whose sigma is shown."""

    def run(self) -> None:
        model = load(self.model)
        schedule, times = model.schedule, model.tau(self.steps, self.spacing)
        rows = []
        for i, (t, s) in enumerate(pairwise(times), 1):
            at_t, at_s = schedule.at(t), schedule.at(s)
            snr = math.inf if at_t.noise == 0 else at_t.alpha_bar / at_t.noise**2
            largest = eta_max(at_t, at_s)
            rows.append([
                str(i), str(t), str(s), f"{at_t.alpha_bar:.6g}", f"{at_s.alpha_bar:.6g}", f"{snr:.4g}",
                f"{sigma(at_t, at_s, self.eta):.6g}", f"{largest:.4g}",
            ])  # fmt: skip
        print(
            table(
                ["step", "t", "s", "alpha_bar_t", "alpha_bar_s", "SNR_t", f"sigma(eta={self.eta:g})", "eta_max"], rows
            )
        )
        start = schedule.at(times[0])
        asked = "" if len(times) - 1 == self.steps else f" ({self.steps} were asked for)"
        print(f"\n{len(times) - 1} steps{asked} of T = {schedule.T}, spacing {self.spacing}")
        print(f"start: x at t = {times[0]} holds {start.signal:.2%} of the signal; it is drawn as pure noise")
        end = schedule.at(times[-1])
        left = "the clean image (alpha_bar = 1, no noise left)"
        if times[-1]:
            left = f"t = {times[-1]}, where the file's own walk stops: noise of std {end.noise:.3g} is left in"
        print(f"end: the last network call is at t = {times[-2]}, then {left}")
