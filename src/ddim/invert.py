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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ddim.coupled import Coupled, Older, gamma_for
from ddim.denoiser import Bound, Clip, Denoiser, DynamicThreshold
from ddim.guidance import Guided
from ddim.implicit import Implicit, StepReport, select
from ddim.latents import Certificate, Latents, Recipe
from ddim.sample import State, trajectory
from ddim.solver import DDIM

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
    **cond: Any,
) -> Latents:
    """The latents from which DDIM (eta = 0) on tau makes these images (DDIM, section 4.3).

    Args:
        denoise: the denoiser; nothing in it may clip.
        x_0: images at tau[-1], (B, *), float; float64 images of a float64 network are encoded to 1e-9.
        tau: falling times, as for sampling; walked in reverse. It may start below T: then x_T is the state there.
        method: "naive": eps asked at the end that is known, with that end's time. "implicit": see `Implicit`.
            "bdia": see `Coupled`. "exact": implicit, and the coupled scheme for the images it did not solve.
        solver: settings of the implicit solve in place of the default ones.
        cond: conditions handed to the network at every call, e.g. label=....

    Raises:
        ValueError: an unknown method; a clip or threshold on x0 in the denoiser; tau not falling;
            "bdia" with fewer than 2 steps, or "exact" where one step could not be solved.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    job = _Job(*unbound(denoise, cond), tuple(tau))
    tau = job.checked()
    solver = _default_solver(x_0.dtype) if solver is None else solver
    recipe = Recipe(tau, method, *describe(job.denoise, job.cond), gamma_for(len(tau) - 1), solver.tolerance)
    x, batch = work(x_0), len(x_0)
    x_T, nfe = x.clone(), torch.zeros(batch, dtype=torch.int64)
    residual = torch.full((batch,), torch.nan, dtype=torch.float64)
    if method == "naive":
        x_T, nfe = job.naive(x), nfe + len(tau) - 1
    elif method != "bdia":
        x_T, residual, nfe = _solve(job, solver, x, retire=method == "exact" and len(tau) > 2)
    x_T = x_T.to(x_0.dtype)
    measured = torch.full((batch, 2), torch.nan, dtype=torch.float64)
    if method != "bdia":
        measured = _compare(job.down(work(x_T)).to(x_0.dtype), x_0)
    unsolved = ~(residual <= solver.tolerance)
    coupled = torch.full((batch,), method == "bdia")
    if method == "exact":
        coupled = ~(residual <= solver.tolerance) | ~(measured[:, 0] >= PROMISED.get(x_0.dtype, 60.0))
    rows, states = torch.nonzero(coupled).flatten(), None
    if len(rows) and len(tau) < 3 and method == "exact":
        raise ValueError(
            f"{len(rows)} of {batch} images have no preimage in 1 step; the coupled scheme, which encodes every image, "
            "needs at least 2 steps"
        )
    if len(rows):
        part, on = job.rows(rows, batch), rows.to(x.device)
        states = part.coupled(x[on], recipe.gamma)
        x_T[on] = states[:, 0].to(x_T.dtype)
        measured[rows] = _compare(part.coupled_down(states, recipe.gamma).to(x_0.dtype), x_0[on])
        nfe[rows] += len(tau) - 1
    certificate = Certificate(residual, measured[:, 0], measured[:, 1], nfe)
    names = tuple(torch.nonzero(unsolved).flatten().tolist()) if method in ("implicit", "exact") else ()
    return Latents(x_T, recipe, certificate, coupled, states, names)


@torch.no_grad()
def decode(denoise: Denoiser, latents: Latents | Tensor, tau: Sequence[int] | None = None, **cond: Any) -> Tensor:
    """The images of latents: DDIM down tau, and the coupled scheme for the images that were encoded by it.

    Args:
        denoise: the denoiser that encoded, or another.
        latents: `Latents`, or plain x_T (B, *), which needs tau.
        tau: falling times; default those of the latents.
        cond: conditions; give those of the encoding to get the images back.

    A recipe other than the encoding's (times, network, label, guidance) warns; every image is then made from its
    x_T by plain DDIM: a new image, not a reconstruction.

    Raises:
        ValueError: x_T without tau; as `sample`.
    """
    bare, cond = unbound(denoise, cond, clips=not isinstance(latents, Latents))
    if not isinstance(latents, Latents):
        if tau is None:
            raise ValueError("plain latents do not know their times: give tau")
        return _Job(bare, cond, tuple(tau)).down(work(latents)).to(latents.dtype)
    recipe = latents.recipe
    job = _Job(bare, cond, recipe.tau if tau is None else tuple(tau))
    changed = recipe.differences(job.tau, *describe(bare, cond))
    if changed:
        warnings.warn(
            f"decoded under another recipe than encoded ({'; '.join(changed)}): these are new images",
            stacklevel=3,
        )
    y = job.down(work(latents.x_T))
    rows = torch.nonzero(latents.coupled).flatten()
    if latents.states is not None and not changed:
        states = latents.states.to(y.device)
        y[rows.to(y.device)] = job.rows(rows, len(y)).coupled_down(states, recipe.gamma)
    return y.to(latents.dtype)


class _Job(NamedTuple):
    """A denoiser freed of its bound conditions, the conditions, and the times: what every walk needs."""

    denoise: Denoiser
    cond: Mapping[str, Any]
    tau: tuple[int, ...]

    def checked(self) -> tuple[int, ...]:
        if len(self.tau) < 2 or any(s >= t for t, s in zip(self.tau[:-1], self.tau[1:], strict=True)):
            raise ValueError(f"tau must fall strictly and have at least two times, got {list(self.tau)}")
        return self.tau

    def rows(self, rows: Tensor, batch: int) -> _Job:
        return self._replace(cond=select(self.cond, rows, batch))

    @property
    def bound(self) -> Denoiser:
        return Bound(self.denoise, dict(self.cond)) if self.cond else self.denoise

    def down(self, x_T: Tensor) -> Tensor:
        return _last(trajectory(self.bound, DDIM(), self.tau, x_T))

    def naive(self, x: Tensor) -> Tensor:
        return _last(trajectory(self.bound, DDIM(), self.tau[::-1], x))

    def coupled(self, x: Tensor, gamma: float) -> Tensor:
        """x at tau[0] and tau[1]: (B, 2, *)."""
        if len(self.tau) < 3:
            raise ValueError("the coupled scheme ('bdia') carries two states: it needs at least 2 steps, got 1")
        states = [s.x for s in trajectory(self.bound, Coupled(gamma), self.tau[::-1], x)]
        return torch.stack([states[-1], states[-2]], 1)

    def coupled_down(self, states: Tensor, gamma: float) -> Tensor:
        solver = Coupled(gamma, Older(self.tau[0], states[:, 0]))
        return _last(trajectory(self.bound, solver, self.tau[1:], states[:, 1]))


def _solve(job: _Job, solver: Implicit, x: Tensor, retire: bool) -> tuple[Tensor, Tensor, Tensor]:
    """x_T, the worst residual of every image (float64, CPU), and its calls (int64, CPU).

    With `retire`, an image leaves at the first step that could not be solved: the coupled scheme will take it, and
    what it would cost to go on is saved. Its x_T is then nothing.
    """
    batch, steps = len(x), list[StepReport]()
    x, eps = x.clone(), torch.zeros_like(x)
    residual, nfe = torch.zeros(batch, dtype=torch.float64), torch.zeros(batch, dtype=torch.int64)
    rows = torch.arange(batch)
    for t, s in itertools.pairwise(job.tau[::-1]):
        on = rows.to(x.device)
        known = eps[on] if (t, s) != job.tau[:-3:-1] else None
        own = replace(solver, cond=select(job.cond, rows, batch), known=known, report=steps.append)
        x[on] = _last(trajectory(job.denoise, own, (t, s), x[on]))
        eps[on] = steps[-1].eps
        residual[rows] = torch.maximum(residual[rows], steps[-1].residual.double().cpu())
        nfe[rows] += steps[-1].calls.cpu()
        if retire:
            rows = rows[residual[rows] <= solver.tolerance]
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


def _last(walk: Iterator[State]) -> Tensor:
    *_, end = walk
    return end.x


def unbound(denoise: Denoiser, cond: Mapping[str, Any], *, clips: bool = False) -> tuple[Denoiser, dict[str, Any]]:
    """The denoiser without its outer bound conditions, and all conditions; refuses what clips, unless `clips`."""
    merged = dict(cond)
    while isinstance(denoise, Bound):
        merged = {**denoise.cond, **merged}
        denoise = denoise.denoise
    inner: Any = denoise
    while inner is not None and not clips:
        if isinstance(inner, Clip | DynamicThreshold):
            raise ValueError(
                f"{type(inner).__name__} changes x0 in a way that cannot be undone, so nothing can be encoded "
                "through it; encode and decode with clip=False"
            )
        inner = getattr(inner, "denoise", None)
    return denoise, merged


def describe(denoise: Denoiser, cond: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A digest of schedule and weights, and the conditions as JSON values: what a recipe remembers."""
    digest = hashlib.blake2b(denoise.schedule.alpha_bar.numpy().tobytes(), digest_size=8)
    conditions = {name: _json(value) for name, value in cond.items()}
    inner: Any = denoise
    while inner is not None:
        if isinstance(inner, Guided):
            conditions["guidance"] = inner.weight
            conditions["rescale"], conditions["interval"] = inner.rescale, _json(inner.interval)
        if isinstance(network := getattr(inner, "network", None), nn.Module):
            digest.update(str(getattr(network, "sha256", "")).encode())  # an exported network's only parameters
            for parameter in network.parameters():
                digest.update(parameter.detach().float().cpu().numpy().tobytes())
        inner = getattr(inner, "denoise", None)
    return digest.hexdigest(), conditions


def _json(value: Any) -> Any:
    if isinstance(value, Tensor):
        classes = value.ndim == 1 and not value.is_floating_point()  # as many as there are images
        return value.tolist() if classes or value.numel() <= 4096 else f"tensor {_digest(value)}"
    return list(value) if isinstance(value, tuple) else value


def _digest(value: Tensor) -> str:
    return hashlib.blake2b(value.detach().cpu().double().numpy().tobytes(), digest_size=8).hexdigest()
