"""The figures of docs/latents.md: how exact encoding is, what it costs, what its latents look like.

    python benchmarks/latents.py MODEL DATA [--n 200] [--steps 20] [--out latents.json]

For each spacing: every method in fp32, `exact` in float64, and step by step how many network calls the implicit
solve takes. Then the coupled scheme as a sampler: its distance to the long trajectory beside DDIM's.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch

from ddim import DDIM, load, noise, sample, trajectory
from ddim.coupled import Coupled, gamma_for
from ddim.data import open_images
from ddim.images import from_uint8
from ddim.implicit import Implicit, StepReport
from ddim.latent_law import law
from ddim.latents import Latents
from ddim.solver import Solver

BATCH = 50


def encoded(model: Any, x: torch.Tensor, labels: torch.Tensor | None, **options: Any) -> Latents:
    parts = []
    for i in range(0, len(x), BATCH):
        label = None if labels is None else labels[i : i + BATCH]
        parts.append(model.encode(x[i : i + BATCH], label=label, **options))
    return Latents.join(parts)


def figures(latents: Latents, seconds: float) -> dict[str, Any]:
    c, w = latents.certificate, law(latents.x_T)
    return {
        "psnr_min": float(c.psnr.min()), "psnr_median": float(c.psnr.median()), "max_error": float(c.max_error.max()),
        "coupled": int(latents.coupled.sum()), "unsolved": len(latents.unsolved), "nfe": float(c.nfe.double().mean()),
        "mean": w.mean, "variance": w.variance, "norm": w.norm, "kurtosis": w.kurtosis, "neighbours": w.correlation,
        "seconds": seconds,
    }  # fmt: skip


def calls_by_step(model: Any, x: torch.Tensor, labels: torch.Tensor | None, tau: tuple[int, ...]) -> dict[str, Any]:
    """Network calls and residuals of the implicit solve, step by step."""
    reports: list[list[StepReport]] = []
    with torch.no_grad():
        for i in range(0, len(x), BATCH):
            own: list[StepReport] = []
            cond = {} if labels is None else {"label": labels[i : i + BATCH]}
            for _ in trajectory(
                model.denoiser(clip=False), Implicit(cond=cond, report=own.append), tau[::-1], x[i : i + BATCH].double()
            ):
                pass
            reports.append(own)
    steps = [StepReport(s[0].t, s[0].s, torch.cat([r.residual for r in s]), torch.cat([r.calls for r in s]), s[0].eps)
             for s in zip(*reports, strict=True)]  # fmt: skip
    tolerance = Implicit().tolerance
    solved = torch.stack([(r.residual <= tolerance) & (r.calls <= 10) for r in steps])
    every = torch.stack([r.residual <= tolerance for r in steps])
    return {
        "steps_solved_in_10": float(solved.float().mean()),
        "images_solved_in_10_every_step": float(solved.all(0).float().mean()),
        "images_solved": float(every.all(0).float().mean()),
        "table": [
            [r.t, r.s, float(done.float().mean()), float(r.calls.float().mean()), float(r.residual.max())]
            for r, done in zip(steps, every, strict=True)
        ],
    }  # fmt: skip


def as_sampler(model: Any, n: int, steps: int) -> dict[str, float]:
    """RMS to the 1000-step trajectory: DDIM, the leapfrog (gamma 1), and the gamma that encoding uses."""
    x_T, tau = noise(range(n), model.shape), model.tau(steps)
    denoise = model.denoiser(
        label=model.labels([i % 10 for i in range(n)], n) if model.num_classes else None, clip=False
    )
    long = sample(denoise, x_T, model.tau(model.schedule.T))
    gamma = gamma_for(steps)
    solvers: dict[str, Solver[Any]] = {"ddim": DDIM()}
    solvers |= {f"gamma {g:.3f}": Coupled(g) for g in (1.0, gamma, 1 / gamma)}
    return {
        name: float((sample(denoise, x_T, tau, solver=s) - long).square().mean().sqrt()) for name, s in solvers.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--spacings", default="uniform,quadratic")
    parser.add_argument("--sampler-n", type=int, default=16)
    parser.add_argument("--out")
    options = parser.parse_args()
    model = load(options.model)
    data = open_images(options.data, size=model.shape[1:], channels=model.shape[0])
    x = from_uint8(data.pixels[: options.n])
    labels = torch.as_tensor(data.labels[: options.n]) if model.num_classes and data.labels is not None else None
    found: dict[str, Any] = {"model": options.model, "n": len(x), "steps": options.steps, "labels": labels is not None}
    for spacing in options.spacings.split(","):
        tau = model.tau(options.steps, spacing)
        for method, precision in [("naive", "fp32"), ("implicit", "fp32"), ("bdia", "fp32"), ("exact", "fp32"),
                                  ("exact", "fp64")]:  # fmt: skip
            start = time.perf_counter()
            images = x.double() if precision == "fp64" else x
            z = encoded(model, images, labels, tau=tau, method=method, precision=precision)
            row = figures(z, time.perf_counter() - start)
            found[f"{spacing} {method} {precision}"] = row
            print(f"{spacing:9} {method:8} {precision}", {k: float(f"{v:.4g}") for k, v in row.items()}, flush=True)
        model = load(options.model)  # fp64 converts the weights for good
        found[f"{spacing} calls"] = calls_by_step(model, x, labels, tau)
        print(f"{spacing:9} calls", {k: v for k, v in found[f"{spacing} calls"].items() if k != "table"}, flush=True)
        for t, s, solved, calls, residual in found[f"{spacing} calls"]["table"]:
            print(f"  {t:4} -> {s:4}  solved {100 * solved:5.1f}%  {calls:5.1f} calls  residual {residual:.0e}")
    found["sampler"] = as_sampler(model, options.sampler_n, options.steps)
    print("as samplers, RMS to the 1000-step trajectory:", found["sampler"])
    if options.out:
        with open(options.out, "w") as file:  # noqa: PTH123 -- a script
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
