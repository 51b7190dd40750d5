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
from ddim.uses.certificate import Certificate, LatentRecipe, compared
from ddim.uses.latents import Latents
from ddim.uses.roads import METHODS, Job, Method, Steps, Tell, walked

PROMISED = {torch.float64: 120.0}  # dB of the round trip below which `exact` does not trust a solve; else 60


@torch.no_grad()
def encode(
    denoise: Denoiser,
    x_0: Tensor,
    tau: Sequence[Any],
    method: Method = "exact",
    *,
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
            "bdia": see `Coupled`. "exact": implicit, and the coupled scheme for the images it did not solve.
        solver: settings of the implicit solve in place of the default ones.
        label: the condition "label", one row an image; or all `conditions` handed to the network at every call.
        progress: called with the steps done and all of them: up, and down again to measure the round trip. They become
            more where images turn out to need the coupled scheme.

    Raises:
        Refused: images of whole numbers; an unknown method; a denoiser that is not invertible (a clip, a
            threshold); tau not falling; "bdia" with fewer than 2 steps, or "exact" where one step could not be solved.
    """
    refuse_whole_numbers(x_0)
    if method not in METHODS:
        raise Refused(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    steps = Steps(progress)
    job = Job(_checked(denoise, conditions | labels(label)), tuple(tau), steps.one)
    tau = job.checked()
    steps.plan(2 * (len(tau) - 1))
    solver = _default_solver(x_0.dtype) if solver is None else solver
    recipe = LatentRecipe(tau, method, *described(job.denoise), gamma_for(len(tau) - 1), solver.tolerance)
    x_T, residual, nfe = walked(job, method, solver, work(x_0))
    x_T = x_T.to(x_0.dtype)
    measured = torch.full((len(x_0), 2), torch.nan, dtype=torch.float64)
    if method != "bdia":
        measured = compared(job.down(work(x_T)).to(x_0.dtype), x_0)
    unsolved = ~(residual <= solver.tolerance)
    broken = unsolved | ~(measured[:, 0] >= PROMISED.get(x_0.dtype, 60.0))
    coupled = broken if method == "exact" else torch.full((len(x_0),), method == "bdia")
    rows = torch.nonzero(coupled).flatten()
    if len(rows) and len(tau) < 3 and method == "exact":
        found = f"{len(rows)} of {len(x_0)} images have no preimage in 1 step"
        raise Refused(f"{found}; the coupled scheme, which encodes every image, needs at least 2 steps")
    steps.plan(2 * (len(tau) - 1) if len(rows) and method == "exact" else 0)
    states = _coupled(job, rows, recipe.gamma, x_0, x_T, measured) if len(rows) else None
    nfe[rows] += len(tau) - 1
    steps.end()
    certificate = Certificate(residual, measured[:, 0], measured[:, 1], nfe)
    names = tuple(torch.nonzero(unsolved).flatten().tolist()) if method in ("implicit", "exact") else ()
    return Latents(x_T, recipe, certificate, coupled, states, names)


def _coupled(job: Job, rows: Tensor, gamma: float, x_0: Tensor, x_T: Tensor, measured: Tensor) -> Tensor:
    """Both states of these images by the coupled scheme; their x_T and their round trip are put into their places."""
    part, on = job.rows(rows), rows.to(x_0.device)
    states = part.coupled(work(x_0[on]), gamma)
    x_T[on] = states[:, 0].to(x_T.dtype)
    measured[rows] = compared(part.coupled_down(states, gamma).to(x_0.dtype), x_0[on])
    return states


@torch.no_grad()
def decode(
    denoise: Denoiser,
    latents: Latents | Tensor,
    tau: Sequence[Any] | None = None,
    *,
    label: Tensor | None = None,
    conditions: Conditions = NONE,
) -> Tensor:
    """The images of latents: DDIM down tau, and the coupled scheme for the images that were encoded by it.

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
    y = job.down(work(latents.x_T))
    rows = torch.nonzero(latents.coupled).flatten()
    if latents.states is not None and not changed:
        states = latents.states.to(y.device)
        y[rows.to(y.device)] = job.rows(rows).coupled_down(states, recipe.gamma)
    return y.to(latents.dtype)


def _default_solver(dtype: torch.dtype) -> Implicit:
    """float64 images are taken to mean a float64 network; a float32 network rounds at 1e-6."""
    if dtype == torch.float64:
        return Implicit(tolerance=1e-9, difference=1e-6)
    return Implicit()


def work(x: Tensor) -> Tensor:
    """The states' own precision, float64; float32 on devices without it."""
    return x.double() if x.device.type != "mps" else x.float()


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
