"""The figures of docs/latents.md: how exact encoding is, what it costs, what its latents look like.

    python benchmarks/latents.py MODEL DATA [--n 200] [--steps 20] [--out latents.json]

For each spacing: every method in fp32, `exact` in float64, and step by step how many network calls the implicit
solve takes. Then the coupled scheme as a sampler: its distance to the long trajectory beside DDIM's.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from typing import Any

import torch

from ddim import DDIM, load, noise, sample, trajectory
from ddim.data import open_images
from ddim.denoise import labels as conditions_of
from ddim.metrics import Moments, extractor, frechet
from ddim.pixels import from_uint8, to_uint8
from ddim.solve import Coupled, Implicit, Solved, Solver, gamma_for
from ddim.uses import Latents, law

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
    upwards = tau[::-1]
    parts: list[list[Solved]] = []
    with torch.no_grad():
        for i in range(0, len(x), BATCH):
            told = conditions_of(None if labels is None else labels[i : i + BATCH])
            states = x[i : i + BATCH].double()
            walk = trajectory(model.denoiser(clip=False), Implicit(), upwards, states, conditions=told)
            parts.append([step.carry for step in walk])
    steps = [(torch.cat([p.residual for p in s]), torch.cat([p.calls for p in s])) for s in zip(*parts, strict=True)]
    tolerance = Implicit().tolerance
    solved = torch.stack([(residual <= tolerance) & (calls <= 10) for residual, calls in steps])
    every = torch.stack([residual <= tolerance for residual, _ in steps])
    return {
        "steps_solved_in_10": float(solved.float().mean()),
        "images_solved_in_10_every_step": float(solved.all(0).float().mean()),
        "images_solved": float(every.all(0).float().mean()),
        "table": [
            [t, s, float(done.float().mean()), float(calls.float().mean()), float(residual.max())]
            for (t, s), done, (residual, calls) in zip(pairwise(upwards), every, steps, strict=True)
        ],
    }  # fmt: skip


def samplers(steps: int) -> dict[str, Solver[Any]]:
    """DDIM, the leapfrog (gamma 1), and the gamma that encoding uses, each way."""
    gamma = gamma_for(steps)
    return {"ddim": DDIM(), **{f"gamma {g:.3f}": Coupled(g) for g in (1.0, gamma, 1 / gamma)}}


def as_sampler(model: Any, n: int, steps: int) -> dict[str, float]:
    """RMS of each sampler's images to the 1000-step trajectory's."""
    x_T, tau = noise(range(n), model.shape), model.tau(steps)
    denoise = model.denoiser(label=cycled(model, range(n)), clip=False)
    long = sample(denoise, x_T, model.tau(model.schedule.T))
    return {
        name: float((sample(denoise, x_T, tau, solver=s) - long).square().mean().sqrt())
        for name, s in samplers(steps).items()
    }


def cycled(model: Any, seeds: range) -> torch.Tensor | None:
    return model.labels([i % model.num_classes for i in seeds], len(seeds)) if model.num_classes else None


def quality(model: Any, real: torch.Tensor, n: int, steps: int, precision: str) -> dict[str, Any]:
    """FD of the digit classifier's features to real images, and the share read as asked, of each sampler's images."""
    look, tau = extractor("mnist"), model.tau(steps)
    target = Moments.of(torch.cat([look.features(part) for part in real.split(500)]))
    found = {}
    for name, solver in samplers(steps).items():
        features, right = [], 0
        for i in range(0, n, BATCH):
            seeds = range(i, min(i + BATCH, n))
            label = cycled(model, seeds)
            x_T = noise(seeds, model.shape)
            x = sample(model.denoiser(label=label, clip=False, precision=precision), x_T, tau, solver=solver)
            f, logits = look.both(from_uint8(to_uint8(x)))
            features.append(f)
            right += int((logits.argmax(1) == label).sum())
        found[name] = {"FD-mnist": frechet(Moments.of(torch.cat(features)), target), "read as asked": right / n}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--spacings", default="uniform,quadratic")
    parser.add_argument("--sampler-n", type=int, default=16)
    parser.add_argument("--quality-n", type=int, default=0, help="images of each sampler for FD; needs --reference")
    parser.add_argument("--reference", help="real digits for FD")
    parser.add_argument("--only-quality", action="store_true")
    parser.add_argument("--out")
    options = parser.parse_args()
    model = load(options.model)
    data = open_images(options.data, size=model.shape[1:], channels=model.shape[0])
    x = from_uint8(data.pixels[: options.n])
    labels = torch.as_tensor(data.labels[: options.n]) if model.num_classes and data.labels is not None else None
    found: dict[str, Any] = {"model": options.model, "n": len(x), "steps": options.steps, "labels": labels is not None}
    for spacing in [] if options.only_quality else options.spacings.split(","):
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
    if options.sampler_n:
        found["sampler"] = as_sampler(model, options.sampler_n, options.steps)
        print("as samplers, RMS to the 1000-step trajectory:", found["sampler"], flush=True)
    if options.quality_n and options.reference:
        real = from_uint8(open_images(options.reference).pixels[:20_000])
        found["quality"] = quality(model, real, options.quality_n, options.steps, "bf16")
        print(f"as samplers, {options.quality_n} images:", found["quality"])
    if options.out:
        with open(options.out, "w") as file:  # noqa: PTH123 -- a script
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
