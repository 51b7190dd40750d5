"""Images to latents and back: the deterministic sampler walked towards noise, naively or exactly.

Four methods. `naive`, the published reversal, errs by O(1/S). `implicit` solves every step, and says for which
images it could not. `bdia`, a coupled scheme, is exact by algebra for every network. `exact` is implicit
where that converges and coupled for the rest, so decode(encode(x)) is x always; the certificate shows it.
States are float64 whatever the network computes in: rounding is then the network's alone.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddim.denoise import NONE, Conditions, Denoiser, bound, labels
from ddim.refused import Refused
from ddim.solve import Implicit, gamma_for, refuse_whole_numbers
from ddim.uses.certificate import LatentRecipe
from ddim.uses.finer import roads_of
from ddim.uses.latents import Latents
from ddim.uses.roads import METHODS, Job, Method, Steps, Tell, work
from ddim.uses.trip import Trip

PROMISED = {torch.float64: 120.0}  # dB of the round trip below which `exact` does not trust a solve; else 60


@torch.no_grad()
def encode(
    denoise: Denoiser,
    x_0: Tensor,
    tau: Sequence[Any],
    method: Method = "exact",
    *,
    start: Any | None = None,
    seeds: Sequence[int] | None = None,
    solver: Implicit | None = None,
    label: Tensor | None = None,
    conditions: Conditions = NONE,
    progress: Tell | None = None,
) -> Latents:
    """The latents from which DDIM (eta = 0) on tau makes these images (DDIM, section 4.3).

    Args:
        denoise: the denoiser; nothing in it may clip.
        x_0: images at tau[-1], (B, *), float; float64 images of a float64 network are encoded to 1e-9.
        tau: falling times, as for sampling; walked in reverse. It may start below T: then x_T is the state there.
        method: "naive": eps asked at the end that is known, with that end's time. "implicit": see `Implicit`.
            "bdia": see `Coupled`. "exact": implicit, on finer times (`roads_of`) for the images that tau does not
            solve, and the coupled scheme for those that remain.
        start: a time that images are noised to, signal x_0 + noise z, and encoded from: then latents of real images,
            which are less noisy than anything the model has seen, follow the law. Decoding takes the same z off.
        seeds: of z, which finer times begin with in any case; one an image, default 0..B-1.
        solver: settings of the implicit solve in place of the default ones.
        label: the condition "label", one row an image; or all `conditions` handed to the network at every call.
        progress: called with the steps done and all of them: up, and down again to measure the round trip. They become
            more where images turn out to need finer times or the coupled scheme.

    Raises:
        Refused: images of whole numbers; an unknown method; a denoiser that is not invertible (a clip, a
            threshold); tau not falling; a start that is not below tau[0]; "bdia" with fewer than 2 steps, or "exact"
            where one step could not be solved.
    """
    refuse_whole_numbers(x_0)
    if method not in METHODS:
        raise Refused(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    seeds = tuple(range(len(x_0)) if seeds is None else seeds)
    if len(seeds) != len(x_0):
        raise Refused(f"{len(x_0)} images need {len(x_0)} seeds, got {len(seeds)}")
    steps = Steps(progress)
    job = Job(_checked(denoise, conditions | labels(label)), tuple(tau), steps.one)
    tau = job.checked()
    solver = _default_solver(x_0.dtype) if solver is None else solver
    roads = roads_of(job.denoise.process, tau, start)[: None if method == "exact" else 1]
    gamma = gamma_for(len(roads[0].tau) - 1)
    recipe = LatentRecipe(tau, method, *described(job.denoise), gamma, solver.tolerance, roads)
    trip = Trip.of(job, x_0, seeds, steps)
    left = torch.arange(len(x_0))
    for k, road in enumerate(roads if method != "bdia" else ()):
        left = trip.solve(left, k, road, method, solver, PROMISED.get(x_0.dtype, 60.0))
    found, states = trip.certificate, None
    if method in ("exact", "bdia") and len(left):
        if len(roads[0].tau) < 3 and method == "exact":
            lost = f"{len(left)} of {len(x_0)} images have no preimage in 1 step"
            raise Refused(f"{lost}; the coupled scheme, which encodes every image, needs at least 2 steps")
        states = trip.couple(left, roads[0], gamma)
    steps.end()
    unsolved = {"exact": found.road < 0, "implicit": ~(found.residual <= solver.tolerance)}.get(method)
    names = () if unsolved is None else tuple(torch.nonzero(unsolved).flatten().tolist())
    return Latents(trip.x_T, recipe, found, found.road < 0, states, names, seeds=seeds)


@torch.no_grad()
def decode(
    denoise: Denoiser,
    latents: Latents | Tensor,
    tau: Sequence[Any] | None = None,
    *,
    label: Tensor | None = None,
    conditions: Conditions = NONE,
) -> Tensor:
    """The images of latents: DDIM down the times each was encoded on, and the coupled scheme for those encoded by it.

    Args:
        denoise: the denoiser that encoded, or another.
        latents: `Latents`, or plain x_T (B, *), which needs tau.
        tau: falling times; default those of the latents.
        label, conditions: give those of the encoding to get the images back.

    A recipe other than the encoding's (times, network, label, guidance) warns; every image is then made from its
    x_T by plain DDIM: a new image, not a reconstruction.

    Raises:
        Refused: x_T without tau; as `sample`.
    """
    conditions = conditions | labels(label)
    if not isinstance(latents, Latents):
        if tau is None:
            raise Refused("plain latents do not know their times: give tau")
        refuse_whole_numbers(latents)
        return Job(bound(denoise, conditions), tuple(tau)).down(work(latents)).to(latents.dtype)
    recipe = latents.recipe
    job = Job(_checked(denoise, conditions), recipe.tau if tau is None else tuple(tau))
    changed = recipe.differences(job.tau, *described(job.denoise))
    if changed:
        warnings.warn(
            f"decoded under another recipe than encoded ({'; '.join(changed)}): these are new images",
            stacklevel=3,
        )
        return job.down(work(latents.x_T)).to(latents.dtype)
    y, seeds = work(latents.x_T).clone(), latents.seeds or range(len(latents))
    for k, road in enumerate(recipe.roads):
        rows = torch.nonzero(latents.certificate.road == k).flatten()
        if len(rows):
            own = [seeds[i] for i in rows.tolist()]
            y[rows.to(y.device)] = job.on(road, rows).image(y[rows.to(y.device)], road, own)
    if latents.states is not None:
        rows, road = torch.nonzero(latents.coupled).flatten(), recipe.roads[0]
        states, own = latents.states.to(y.device), [seeds[i] for i in rows.tolist()]
        y[rows.to(y.device)] = job.on(road, rows).coupled_image(states, recipe.gamma, road, own)
    return y.to(latents.dtype)


def _default_solver(dtype: torch.dtype) -> Implicit:
    """float64 images are taken to mean a float64 network; a float32 network rounds at 1e-6."""
    if dtype == torch.float64:
        return Implicit(tolerance=1e-9, difference=1e-6)
    return Implicit()


def _checked(denoise: Denoiser, conditions: Conditions) -> Denoiser:
    """The denoiser under these conditions, if images can be encoded through it."""
    kind = type(denoise).__name__
    if not isinstance(denoise, Denoiser):
        raise Refused(
            f"{kind} does not say whether it is invertible: derive it from ddim.Denoiser, which asks for that"
        )
    if not denoise.invertible:
        raise Refused(f"{kind} {denoise.loses}")
    return bound(denoise, conditions)


def described(denoise: Denoiser) -> tuple[str, dict[str, Any]]:
    """A digest of process and weights, and the conditions as JSON values: what a recipe remembers."""
    digest = hashlib.blake2b(denoise.process.identity(), digest_size=8)
    denoise.identify(digest)
    return digest.hexdigest(), denoise.describe()
