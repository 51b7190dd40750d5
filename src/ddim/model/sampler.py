"""`Sampler`: everything that decides an image, composed once and frozen. Equal recipes make equal images."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ddim.denoise import Conditions, Denoiser, bound
from ddim.engine import undisturbed
from ddim.pixels import Space
from ddim.process import noise
from ddim.refused import Refused
from ddim.solve import Solver, Step, asked, step_noise, trajectory
from ddim.uses import Latents, Method, Reproduction, Tell, decode, encode

ConditionRule = Callable[[Sequence[int]], Conditions]
"""Seeds -> what the network is told of the images made from them."""


class Overflowed(UserWarning):
    """Images for which half precision is too small."""


@dataclass(frozen=True, eq=False)
class Sampler:
    """A denoiser, what it is told, a solver, its times, and the space they walk in.

    Attributes:
        denoise: the network with its wrappers; `bare` is the same without those that cannot be undone (clips).
        conditions: seeds -> what the network is told.
        solver, tau: how and where it steps.
        space: from states to pictures in [-1, 1].
        device: where the states lie.
        recipe: all of it as JSON.
        again: makes (bare, denoise) in fp32, where the network runs in half precision and may overflow.
    """

    denoise: Denoiser
    bare: Denoiser
    conditions: ConditionRule
    solver: Solver[Any]
    tau: tuple[Any, ...]
    space: Space
    device: torch.device
    recipe: Mapping[str, Any]
    again: Callable[[], tuple[Denoiser, Denoiser]] | None = None

    def __repr__(self) -> str:
        names = ("solver", "eta", "label", "conditions", "guidance", "interval", "guide", "early", "at")
        told = ", ".join(f"{name}={reprlib.repr(self.recipe[name])}" for name in names if name in self.recipe)
        return f"Sampler({len(self.tau) - 1} steps, {told})"

    @cached_property
    def calls(self) -> int:
        """Network calls an image takes: those of guidance, and of any network that answers, are counted."""
        if all(self.denoise.calls_at(t) == 1 for t in self.tau):
            return self.solver.calls(self.tau)
        return sum(map(self.denoise.calls_at, self.asked()))

    def asked(self) -> tuple[Any, ...]:
        """The times at which a walk asks the denoiser, one a call; nothing is asked of the network here.

        Raises:
            Refused: what this solver cannot do on these times.
        """
        return asked(self.denoise, self.solver, self.tau)

    def start(self, seeds: Sequence[int]) -> Tensor:
        """x at tau[0] for these seeds, (B, *state_shape): pure noise of the size it has there."""
        x = noise(seeds, self.space.state_shape).to(self.device)
        std = self.denoise.process.start(self.tau[0])
        return x if std == 1.0 else std * x

    def classes(self, seeds: Sequence[int]) -> list[int] | None:
        """The class of each seed's picture, or None where none is asked for."""
        label = self.conditions(seeds).per_image.get("label")
        return None if label is None else label.tolist()

    def rehearse(self) -> None:
        """The walk on a Gaussian of two numbers: what this solver cannot do on these times costs no network call.

        Raises:
            Refused: as the solver says.
        """
        self.asked()

    @torch.no_grad()
    def call(self, seeds: Sequence[int]) -> None:
        """The first network call of these seeds' walk alone: for what has to be measured beforehand."""
        with undisturbed(self.device):
            self.bound(seeds).pinned()(self.start(seeds), self.tau[0])

    @torch.no_grad()
    def sample(
        self, seeds: Sequence[int], *, latents: Tensor | None = None, batch_size: int = 64,
        progress: Tell | None = None,
    ) -> Tensor:  # fmt: skip
        """One picture a seed, (B, C, H, W) in [-1, 1] (not clamped). Picture i depends on seeds[i] alone.

        No gradients: they pass through `trajectory`. A picture that overflows in half precision is made anew in fp32,
        and `Overflowed` says so.

        Args:
            latents: x at tau[0], one a seed, in place of noise.
            batch_size: pictures a network call; does not change the noise of any.
            progress: called after every step with the network calls done and all of them, each once a picture.
        """
        if batch_size < 1:
            raise Refused(f"`batch_size` must be at least 1, got {batch_size}")
        if latents is not None and len(latents) != len(seeds):
            raise Refused(f"{len(latents)} latents, but {len(seeds)} seeds")
        told = self.conditions(seeds)
        told.check(len(seeds))
        self.solver.check(len(seeds))
        done, out = 0, []
        for i in range(0, len(seeds), batch_size):
            part = slice(i, i + batch_size)
            x_T = self.start(seeds[part]) if latents is None else latents[part].to(self.device)
            own, solver = told.rows(part), self.solver.rows(part)
            made = x_T
            for step in self._walk(seeds[part], x_T, own, solver):
                made, done = step.x, done + step.calls * len(x_T)
                if progress is not None:
                    progress(done, self.calls * len(seeds))
            out.append(self._redone(made, seeds[part], x_T, own, solver))
        return self.space.decode(torch.cat(out))

    def _walk(
        self, seeds: Sequence[int], x_T: Tensor, told: Conditions, solver: Solver[Any]
    ) -> Iterator[Step[Any]]:  # fmt: skip
        walk = trajectory(self.denoise, solver, self.tau, x_T, step_noise(seeds, x_T), conditions=told)
        with undisturbed(self.device):
            yield from walk

    def _redone(
        self, made: Tensor, seeds: Sequence[int], x_T: Tensor, told: Conditions, solver: Solver[Any]
    ) -> Tensor:  # fmt: skip
        """The states; those that overflowed from fp32, where all are walked again: kernels go by the number of rows."""
        rows = ~made.isfinite().flatten(1).all(1)
        if self.again is None or not bool(rows.any()):
            return made
        bare, denoise = self.again()
        exact = replace(self, denoise=denoise, bare=bare, again=None)
        *_, last = exact._walk(seeds, x_T, told, solver)
        if bool(last.x[rows].isfinite().all()):
            which = ", ".join(str(s) for s, row in zip(seeds, rows.tolist(), strict=True) if row)
            warnings.warn(
                f"{int(rows.sum())} of {len(made)} images overflowed in {self.recipe['precision']} and were made anew "
                f"in fp32: seeds {which}", Overflowed, stacklevel=3,
            )  # fmt: skip
        return torch.where(rows.view(-1, *([1] * (made.ndim - 1))), last.x, made)

    def trajectory(self, seeds: Sequence[int], *, latents: Tensor | None = None) -> Iterator[Step[Any]]:
        """Every step of the walk from these seeds (or latents), as states: `space.decode` makes pictures of them.

        Gradients pass, unless the caller says torch.no_grad.
        """
        x_T = self.start(seeds) if latents is None else latents.to(self.device)
        draw = step_noise(seeds, x_T)
        return trajectory(self.denoise, self.solver, self.tau, x_T, draw, conditions=self.conditions(seeds))

    def encode(
        self, x: Tensor, method: Method = "exact", *, start: Any | None = None,
        seeds: Sequence[int] | None = None, progress: Tell | None = None,
    ) -> Latents:  # fmt: skip
        """Latents of pictures (B, C, H, W) in [-1, 1], by DDIM on these times; see `ddim.encode`. Never clips.

        Where they go through an autoencoder, `certificate` is of the inversion, between its latents, and `fidelity` of
        the autoencoder, between pictures.

        Args:
            start, progress: see `ddim.encode`.
            seeds: see `ddim.encode`; also for rules that read them (label "cycle"). Default 0..B-1.
        """
        seeds = range(len(x)) if seeds is None else seeds
        told = self.conditions(seeds)
        with undisturbed(self.device), torch.no_grad():
            states = self.space.encode(x.to(self.device))
            back = None if self.space.lossless else self.space.decode(states)
            found = encode(
                self.bare, states, self.tau, method, start=start, seeds=seeds, conditions=told, progress=progress
            )
        fidelity = None if back is None else Reproduction.of(back, x.to(self.device))
        return replace(found, certificate=found.certificate.scaled(self.space.unit), fidelity=fidelity)

    def decode(self, latents: Latents | Tensor, *, seeds: Sequence[int] | None = None) -> Tensor:
        """Pictures of latents by DDIM on these times; under another recipe than the encoding's it warns."""
        if not self.bare.invertible:
            raise Refused(f"this model {self.bare.loses}; give latents to `sample`")
        told = self.conditions(range(len(latents)) if seeds is None else seeds)
        with undisturbed(self.device), torch.no_grad():
            return self.space.decode(decode(self.bare, latents, self.tau, conditions=told))

    def bound(self, seeds: Sequence[int]) -> Denoiser:
        """The denoiser as it answers for these seeds."""
        return bound(self.denoise, self.conditions(seeds))
