"""Draws the pictures of docs/score.md: every process on one axis, and DDIM's paths beside those of the reverse SDE.

python tools/score_pictures.py
"""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

import ddim
from ddim.process import Process, edm, flow, process_of, subvp, ve, vp
from ddim.solve import EulerMaruyama, Langevin, Solver, step_noise, trajectory

matplotlib.use("Agg")
import matplotlib.pyplot as plt

IMAGES = Path(__file__).parent.parent / "docs" / "images"
PATHS, STEPS = 24, 40


def ratio(process: Process, t: Any) -> float:
    at = process.at(t)
    return at.noise / at.signal if at.signal else float("inf")


def one_axis() -> None:
    """noise/signal against the share of the way from the cleanest time to the noisiest."""
    figure, axes = plt.subplots(figsize=(7.7, 4.2))
    schedule, shares = ddim.Schedule.linear(1000), np.linspace(0, 1, 400)
    whole = [round(1 + 999 * u) for u in shares]
    axes.plot(shares, [ratio(schedule, t) for t in whole], "--", lw=3, label="ddpm (linear)")
    for name, process in {"vp": vp(), "subvp": subvp(), "ve": ve(), "flow": flow()}.items():
        times = [process.first + (process.T - process.first) * u for u in shares]
        axes.plot(shares, [ratio(process, t) for t in times], label=name)
    low, high = (edm().at(t).noise ** (1 / 7) for t in (edm().first, edm().T))
    axes.plot(shares, [(low + (high - low) * u) ** 7 for u in shares], label="edm (t by rho=7)")
    axes.set(yscale="log", ylim=(1e-3, 1e3), xlabel="share of the way from image to noise", ylabel="rho = noise/signal",
             title="One axis: where each process is on the way")  # fmt: skip
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(IMAGES / "one_axis.png", dpi=100)


def langevin() -> None:
    """x at unit variance along three walks of two heaps of data."""
    process = process_of("ve")
    data = ddim.MixtureDenoiser(process, [1.0, 2.0], [-0.6, 0.5], 0.01)
    tau = ddim.tau(process, STEPS, "logsnr")[:-1]
    x_T = process.start(tau[0]) * ddim.noise(range(PATHS), (1,), dtype=torch.float64)
    walks: dict[str, Solver[Any]] = {
        "DDIM (eta 0)": ddim.DDIM(), "Euler-Maruyama": EulerMaruyama(),
        "annealed Langevin, 10 a level": Langevin(0.2, 10),
    }  # fmt: skip
    figure, panels = plt.subplots(1, 3, figsize=(11, 4), sharey=True)
    rhos = [ratio(process, t) for t in tau]
    for axes, (name, solver) in zip(panels, walks.items(), strict=True):
        steps = trajectory(data, solver, tau, x_T, step_noise(range(PATHS), x_T))
        states = torch.cat([x_T, *(step.x for step in steps)], 1) / (1 + torch.tensor(rhos) ** 2).sqrt()
        axes.plot(rhos, states.T, lw=0.9, alpha=0.8)
        axes.set(xscale="log", xlabel="rho = noise/signal", title=name, ylim=(-3, 3))
        axes.invert_xaxis()
    panels[0].set_ylabel("x at unit variance: y/sqrt(1 + rho^2)")
    figure.tight_layout()
    figure.savefig(IMAGES / "langevin.png", dpi=100)


if __name__ == "__main__":
    one_axis()
    langevin()
