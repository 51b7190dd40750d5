"""`ddim.load(...)` and the `Model` it returns: the one place that turns names into objects.

A model is a checkpoint (network, schedule, meaning of the output) plus defaults. Every method builds the
pieces of the lower floors and calls them; nothing here knows any maths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ddim import engine
from ddim.asked import labels_of, seeds_of
from ddim.checkpoints import Checkpoint, open_checkpoint
from ddim.denoiser import Bound, Denoiser
from ddim.exported import Exported
from ddim.guidance import Guided
from ddim.invert import decode, encode
from ddim.latents import Latents
from ddim.multistep import solver_named
from ddim.noise import noise
from ddim.sample import sample
from ddim.solver import Solver
from ddim.tau import tau

BUNDLED = Path(__file__).parent / "bundled"
DEFAULT = "mnist"
Labels = int | Sequence[int] | Tensor | None


def bundled_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(p.parent.name for p in BUNDLED.glob("*/model_index.json"))


def load(
    source: str | Path = DEFAULT,
    *,
    family: str = "auto",
    config: Mapping[str, Any] | str | Path | None = None,
    device: str | torch.device = "cpu",
) -> Model:
    """A model from a bundled name, a folder, a hub id or a foreign checkpoint file.

    Args:
        source: "mnist", a model or run folder, "owner/name" on the hub, or a file such as ema.pt.
        family: "auto", "diffusers", "ermongroup", "openai" or "lucidrains".
        config: the peer's own settings (its names), where the file does not hold them; a mapping or a YAML/JSON file.
        device: where the network goes; "auto" takes an accelerator when there is one.

    Raises:
        ValueError, OSError: nothing there, or not readable as a model; one line with the remedy.
    """
    bundled = str(source) in bundled_names() and not (Path(source) / "model_index.json").exists()
    place = BUNDLED / str(source) if bundled else source
    return Model(open_checkpoint(place, family=family, config=config)).to(device)


class Model:
    """A trained network ready to use; `load` makes it.

    Attributes:
        checkpoint: what was found and what was assumed; `ddim info` prints it.
        schedule, prediction, shape (C, H, W), num_classes, null_label: as the checkpoint says.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.schedule = checkpoint.schedule
        self.prediction = checkpoint.prediction
        self.shape = checkpoint.shape
        self.num_classes = checkpoint.num_classes
        self.null_label = checkpoint.null_label
        self.device = torch.device("cpu")
        self._prepared: dict[tuple[str, bool], nn.Module] = {}

    def __repr__(self) -> str:
        return f"Model({self.checkpoint.source}, shape={self.shape}, {self.prediction}, T={self.schedule.T})"

    @property
    def weights_hash(self) -> str:
        """sha256 of the weights."""
        return self.checkpoint.sha256

    def to(self, device: str | torch.device) -> Model:
        """Move the network; "auto" takes an accelerator when there is one."""
        self.device = engine.pick_device(device)
        self._prepared.clear()
        self.checkpoint.network.to(self.device)
        return self

    # -- names into objects ---------------------------------------------------------------------------

    def tau(
        self, steps: int | None = 20, spacing: str | Sequence[int] = "uniform", *, solver: str = "ddim"
    ) -> tuple[int, ...]:
        """`ddim.tau` on this model's schedule; "tuned" takes the times `ddim tune` saved for this solver and S.

        ``diffusers`` walks the file's own timestep_spacing and steps_offset.
        """
        if spacing == "tuned":
            from ddim.tune import load_tuned

            return tau(
                self.schedule.T, steps, load_tuned(self.checkpoint.folder, solver, steps, self.checkpoint.identity)
            )
        if spacing == "diffusers":
            return self.checkpoint.own_tau(steps)
        offset = self.checkpoint.steps_offset if spacing == "leading" else 0
        return tau(self.schedule.T, steps, spacing, alpha_bar=self.schedule.alpha_bar.tolist(), offset=offset)

    def labels(self, label: Labels, n: int) -> Tensor | None:
        """One class an image, int64 (n,), or None for an unconditional network or the null label.

        Raises:
            ValueError: a label where there are no classes, outside 0..K-1, or not one an image.
        """
        found = labels_of(label, n, self.num_classes, self.null_label)
        return None if found is None else found.to(self.device)

    def network(self, precision: str = "fp32", compiled: bool = False) -> nn.Module:
        """The network ready to run in that precision, through torch.compile or not; made once and kept."""
        if isinstance(self.checkpoint.network, Exported):
            return self.checkpoint.network.checked(precision, self.device, compiled)
        key = engine.pick_precision(precision, self.device), compiled
        if key not in self._prepared:
            self._prepared[key] = engine.prepared(self.checkpoint.network, key[0], compiled=compiled)
        return self._prepared[key]

    def runs_in(self, precision: str) -> str:
        """The number format of a job that asks for this one: an exported network has its own."""
        return str(getattr(self.checkpoint.network, "precision", precision))

    def denoiser(
        self,
        *,
        label: Tensor | None = None,
        guidance: float = 1.0,
        clip: bool | None = None,
        precision: str = "fp32",
        compiled: bool = False,
    ) -> Denoiser:
        """The network as a denoiser, with its conditions bound.

        Args:
            label: int64 (B,), from `labels`; None is the null label.
            guidance: weight w of classifier-free guidance; 1 is the plain conditional network.
            clip: clamp x0 into the data's range and re-derive eps; None does what the checkpoint says.
            precision: "fp32", "bf16", "fp16", "fp64" or "auto"; the state and the coefficients stay as x is.
            compiled: through torch.compile; minutes at the first call on a CPU, see `engine.compile_decision`.

        Raises:
            ValueError: guidance without a label or without a null label.
        """
        denoise: Denoiser = self.checkpoint.denoiser(self.network(precision, compiled))
        if guidance != 1.0:
            if label is None or self.null_label is None:
                need = "a label" if self.null_label is not None else "a model trained with label dropout"
                raise ValueError(f"guidance = {guidance} needs {need}")
            denoise = Guided(denoise, guidance, self.null_label)
        wanted = self.checkpoint.clips if clip is None else clip
        if wanted:
            denoise = self.checkpoint.clipped(denoise, dynamic=self.checkpoint.thresholding and clip is None)
        return Bound(denoise, {"label": label}) if label is not None else denoise

    # -- uses -----------------------------------------------------------------------------------------

    def sample(
        self,
        n: int | None = None,
        *,
        steps: int | None = None,
        eta: float = 0.0,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        latents: Tensor | None = None,
        spacing: str | Sequence[int] = "uniform",
        tau: Sequence[int] | None = None,
        solver: str | Solver[Any] = "ddim",
        label: Labels = None,
        guidance: float = 1.0,
        clip: bool | None = None,
        precision: str = "fp32",
        compiled: bool = False,
        batch_size: int = 64,
    ) -> Tensor:
        """n images, float (n, C, H, W) in [-1, 1] (not clamped). Image i depends on its seed alone.

        Args:
            n, seed: seeds seed..seed+n-1; or `seeds`: these; or `latents`: start from these x_T (n, C, H, W).
            steps, spacing: see `ddim.tau`; 20 steps unless said otherwise. `tau` gives the times themselves.
            eta: 0 deterministic, 1 DDPM. solver: a name of `multistep.SOLVERS` or a solver object.
            label: one class, or one an image; None leaves the class open.
            guidance, clip, precision, compiled: see `denoiser`.
            batch_size: images a network call; does not change the noise of any image.

        Raises:
            ValueError: combinations that make no sense, with the numbers.
        """
        seeds = seeds_of(n, seed, seeds, latents, self.shape)
        count = len(seeds)
        times = self._times(steps, spacing, tau, solver)
        method = solver_named(solver, eta) if isinstance(solver, str) else solver
        if not isinstance(solver, str) and eta:
            raise ValueError(f"eta = {eta} belongs to the solver object: give it there")
        classes = self.labels(label, count)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        out = []
        for i in range(0, count, batch_size):
            part = slice(i, i + batch_size)
            x_T = noise(seeds[part], self.shape) if latents is None else latents[part]
            own = None if classes is None else classes[part]
            denoise = self.denoiser(label=own, guidance=guidance, clip=clip, precision=precision, compiled=compiled)
            out.append(sample(denoise, x_T.to(self.device), times, solver=method, seeds=seeds[part]))
        return self.checkpoint.to_unit(torch.cat(out))

    def encode(
        self,
        x: Tensor,
        *,
        steps: int | None = None,
        spacing: str | Sequence[int] = "uniform",
        tau: Sequence[int] | None = None,
        method: Literal["naive", "implicit", "bdia", "exact"] = "exact",
        label: Labels = None,
        guidance: float = 1.0,
        precision: str = "fp32",
    ) -> Latents:
        """Latents of images x (n, C, H, W) in [-1, 1]; see `ddim.encode`. Never clips: that has no inverse."""
        times = self._times(steps, spacing, tau, "ddim")
        denoise = self.denoiser(label=self.labels(label, len(x)), guidance=guidance, clip=False, precision=precision)
        found = encode(denoise, self.checkpoint.from_unit(x.to(self.device)), times, method=method)
        return replace(found, certificate=found.certificate.scaled(self.checkpoint.unit))

    def decode(
        self,
        latents: Latents | Tensor,
        *,
        steps: int | None = None,
        spacing: str | Sequence[int] = "uniform",
        tau: Sequence[int] | None = None,
        label: Labels = None,
        guidance: float = 1.0,
        precision: str = "fp32",
    ) -> Tensor:
        """Images of latents; with `Latents`, their own times unless others are given (then it warns)."""
        n = len(latents)
        denoise = self.denoiser(label=self.labels(label, n), guidance=guidance, clip=False, precision=precision)
        own = isinstance(latents, Latents) and steps is None and tau is None and spacing == "uniform"
        x = decode(denoise, latents, None if own else self._times(steps, spacing, tau, "ddim"))
        return self.checkpoint.to_unit(x)

    def _times(
        self,
        steps: int | None,
        spacing: str | Sequence[int],
        times: Sequence[int] | None,
        solver: str | Solver[Any],
    ) -> tuple[int, ...]:
        if times is not None:
            if spacing != "uniform":
                raise ValueError(f"tau names the times and spacing = {spacing!r} would too: give one of them")
            if self.checkpoint.ends_at and times[-1] == self.checkpoint.ends_at:
                return tau(self.schedule.T, None, (*times, 0))[:-1]  # the file's own walk, which stops early
            return tau(self.schedule.T, steps, times)
        explicit = not isinstance(spacing, str)
        name = solver if isinstance(solver, str) else "ddim"
        return self.tau(steps if explicit or steps is not None else 20, spacing, solver=name)
