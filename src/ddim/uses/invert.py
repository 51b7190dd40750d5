"""Images to latents and back: the deterministic sampler walked towards noise, naively or exactly.

Four methods. `naive`, the published reversal, errs by O(1/S). `implicit` solves every step, and says for which
images it could not. `bdia`, a coupled scheme, is exact by algebra for every network. `exact` is implicit
where that converges and coupled for the rest, so decode(encode(x)) is x always; the certificate shows it.
States are float64 whatever the network computes in: rounding is then the network's alone.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ddim.denoise import NONE, Conditions, Denoiser, bound, labels
from ddim.refused import Refused
from ddim.solve import DDIM, Coupled, Implicit, Older, Solved, end_of, gamma_for, trajectory
from ddim.uses.latents import Certificate, LatentRecipe, Latents

Method = Literal["naive", "implicit", "bdia", "exact"]
METHODS: tuple[Method, ...] = ("naive", "implicit", "bdia", "exact")
PROMISED = {torch.float64: 120.0}  # dB of the round trip below which `exact` does not trust a solve; else 60


@torch.no_grad()
def encode(
    denoise: Denoiser,
    x_0: Tensor,
    tau: Sequence[int],
    method: Method = "exact",
    *,
    solver: Implicit | None = None,
    label: Tensor | None = None,
    conditions: Conditions = NONE,
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

    Raises:
        Refused: an unknown method; a denoiser that is not invertible (a clip, a threshold); tau not falling;
            "bdia" with fewer than 2 steps, or "exact" where one step could not be solved.
    """
    if method not in METHODS:
        raise Refused(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    job = _Job(_checked(denoise, conditions | labels(label)), tuple(tau))
    tau = job.checked()
    solver = _default_solver(x_0.dtype) if solver is None else solver
    recipe = LatentRecipe(tau, method, *described(job.denoise), gamma_for(len(tau) - 1), solver.tolerance)
    x_T, residual, nfe = _walked(job, method, solver, work(x_0))
    x_T = x_T.to(x_0.dtype)
    measured = torch.full((len(x_0), 2), torch.nan, dtype=torch.float64)
    if method != "bdia":
        measured = _compare(job.down(work(x_T)).to(x_0.dtype), x_0)
    unsolved = ~(residual <= solver.tolerance)
    coupled = torch.full((len(x_0),), method == "bdia")
    if method == "exact":
        coupled = unsolved | ~(measured[:, 0] >= PROMISED.get(x_0.dtype, 60.0))
    rows, states = torch.nonzero(coupled).flatten(), None
    if len(rows) and len(tau) < 3 and method == "exact":
        raise Refused(
            f"{len(rows)} of {len(x_0)} images have no preimage in 1 step; the coupled scheme, which encodes every "
            "image, needs at least 2 steps"
        )
    if len(rows):
        part, on = job.rows(rows), rows.to(x_0.device)
        states = part.coupled(work(x_0[on]), recipe.gamma)
        x_T[on] = states[:, 0].to(x_T.dtype)
        measured[rows] = _compare(part.coupled_down(states, recipe.gamma).to(x_0.dtype), x_0[on])
        nfe[rows] += len(tau) - 1
    certificate = Certificate(residual, measured[:, 0], measured[:, 1], nfe)
    names = tuple(torch.nonzero(unsolved).flatten().tolist()) if method in ("implicit", "exact") else ()
    return Latents(x_T, recipe, certificate, coupled, states, names)


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
        return _Job(bound(denoise, conditions), tuple(tau)).down(work(latents)).to(latents.dtype)
    recipe = latents.recipe
    job = _Job(_checked(denoise, conditions), recipe.tau if tau is None else tuple(tau))
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


class _Job(NamedTuple):
    """A denoiser under its conditions, and the times: what every walk needs."""

    denoise: Denoiser
    tau: tuple[Any, ...]

    def checked(self) -> tuple[Any, ...]:
        if len(self.tau) < 2 or any(s >= t for t, s in zip(self.tau[:-1], self.tau[1:], strict=True)):
            raise Refused(f"tau must fall strictly and have at least two times, got {list(self.tau)}")
        return self.tau

    def rows(self, rows: Tensor) -> _Job:
        return self._replace(denoise=self.denoise.rows(rows))

    def down(self, x_T: Tensor) -> Tensor:
        return end_of(trajectory(self.denoise, DDIM(), self.tau, x_T))

    def naive(self, x: Tensor) -> Tensor:
        return end_of(trajectory(self.denoise, DDIM(), self.tau[::-1], x))

    def coupled(self, x: Tensor, gamma: float) -> Tensor:
        """x at tau[0] and tau[1]: (B, 2, *)."""
        if len(self.tau) < 3:
            raise Refused("the coupled scheme ('bdia') carries two states: it needs at least 2 steps, got 1")
        states = [step.x for step in trajectory(self.denoise, Coupled(gamma), self.tau[::-1], x)]
        return torch.stack([states[-1], states[-2]], 1)

    def coupled_down(self, states: Tensor, gamma: float) -> Tensor:
        first = Older(self.tau[0], states[:, 0])
        return end_of(trajectory(self.denoise, Coupled(gamma), self.tau[1:], states[:, 1], carry=first))


def _walked(job: _Job, method: Method, solver: Implicit, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x_T by the method's first road, its worst residual (NaN where nothing is solved) and its calls, an image each."""
    if method in ("implicit", "exact"):
        return _solve(job, solver, x, retire=method == "exact" and len(job.tau) > 2)
    unknown = torch.full((len(x),), torch.nan, dtype=torch.float64)
    calls = torch.full((len(x),), len(job.tau) - 1 if method == "naive" else 0)
    return job.naive(x) if method == "naive" else x.clone(), unknown, calls


def _solve(job: _Job, solver: Implicit, x: Tensor, retire: bool) -> tuple[Tensor, Tensor, Tensor]:
    """x_T, the worst residual of every image (float64, CPU), and its calls (int64, CPU).

    With `retire`, an image leaves at the first step that could not be solved: the coupled scheme will take it, and
    what it would cost to go on is saved. Its x_T is then nothing.
    """
    batch, x = len(x), x.clone()
    residual, nfe = torch.zeros(batch, dtype=torch.float64), torch.zeros(batch, dtype=torch.int64)
    rows, held = torch.arange(batch), None
    for pair in itertools.pairwise(job.tau[::-1]):
        on = rows.to(x.device)
        (step,) = trajectory(job.denoise.rows(rows), solver, pair, x[on], carry=held)
        x[on], solved = step.x, step.carry
        assert solved is not None  # the carry of a step that was taken
        residual[rows] = torch.maximum(residual[rows], solved.residual.double().cpu())
        nfe[rows] += solved.calls.cpu()
        kept = residual[rows] <= solver.tolerance if retire else torch.ones(len(rows), dtype=torch.bool)
        rows, held = rows[kept], Solved(*(v[kept.to(v.device)] for v in solved))
        if not len(rows):
            break
    return x, residual, nfe


def _default_solver(dtype: torch.dtype) -> Implicit:
    """float64 images are taken to mean a float64 network; a float32 network rounds at 1e-6."""
    if dtype == torch.float64:
        return Implicit(tolerance=1e-9, difference=1e-6)
    return Implicit()


def _compare(y: Tensor, x: Tensor) -> Tensor:
    """PSNR in dB (peak to peak 2) and largest error of every image, (B, 2), float64 on the CPU."""
    error = (y.double() - x.double()).flatten(1)
    psnr = 10.0 * torch.log10(4.0 / error.square().mean(1))
    return torch.stack([psnr, error.abs().amax(1)], 1).cpu()


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
        raise Refused(
            f"{kind} changes x0 in a way that cannot be undone, so nothing can be encoded through it; "
            "encode and decode with clip=False"
        )
    return bound(denoise, conditions)


def described(denoise: Denoiser) -> tuple[str, dict[str, Any]]:
    """A digest of process and weights, and the conditions as JSON values: what a recipe remembers."""
    digest = hashlib.blake2b(denoise.process.identity(), digest_size=8)
    denoise.identify(digest)
    return digest.hexdigest(), denoise.describe()
