"""`Model`: a checkpoint with its defaults, and the one place that turns names into objects.

Every method builds the pieces of the lower floors and calls them; nothing here knows any maths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from ddim import engine
from ddim.checkpoints import Checkpoint, save_tuned
from ddim.denoise import Denoiser, Guided, bound, labels
from ddim.files import VERSION
from ddim.model.asked import How, LabelRule, Labels, labels_of, seeds_of, solver_asked, times_asked, times_named
from ddim.model.own import OwnFacts, own_checkpoint
from ddim.model.sampler import Sampler
from ddim.process import Schedule
from ddim.refused import Refused
from ddim.solve import Solver
from ddim.uses import Latents, Method


class Model:
    """A trained network ready to use; `load` makes it.

    Attributes:
        checkpoint: what was found and what was assumed; `ddim info` prints it.
        schedule, prediction, shape (C, H, W), num_classes, null_label, space: as the checkpoint says.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.schedule = checkpoint.schedule
        self.prediction = checkpoint.prediction
        self.shape = checkpoint.shape
        self.space = checkpoint.space
        self.num_classes = checkpoint.num_classes
        self.null_label = checkpoint.null_label
        self.device = torch.device("cpu")
        self._prepared: dict[tuple[str, bool], nn.Module] = {}

    @classmethod
    def from_network(cls, network: nn.Module, schedule: Schedule, **facts: Unpack[OwnFacts]) -> Model:
        """A network of your own as a model: everything that takes a model takes it.

        Args:
            network: network(x, t) or network(x, t, label) -> tensor, or an object with `.sample`; x (B, *shape) in
                `data_range`, t int64 (B,) 0-based, label int64 (B,) or None.
            schedule: the one it was trained on.
            facts: shape (C, H, W) of one image, and whatever is not as usual: see `OwnFacts`.

        Raises:
            Refused: a network that is no torch.nn.Module, or facts that contradict one another.
        """
        return cls(own_checkpoint(network, schedule, **facts))

    def __repr__(self) -> str:
        return f"Model({self.checkpoint.source}, shape={self.shape}, {self.prediction}, T={self.schedule.T})"

    @property
    def weights_hash(self) -> str:
        """sha256 of the weights."""
        return self.checkpoint.sha256

    @property
    def reading(self) -> Mapping[str, Any]:
        """What decides an image beside the weights: how the file was read."""
        return self.checkpoint.reading

    @property
    def clips(self) -> bool:
        """Whether x0 is clamped when it samples, unless `clip` says otherwise."""
        return self.checkpoint.clips

    @property
    def exported(self) -> bool:
        """Whether another runtime runs the network, as it was exported."""
        return self.checkpoint.exported is not None

    @property
    def folder(self) -> Path | None:
        """Where `save_tau` keeps times; None if the model is no folder."""
        return self.checkpoint.folder

    def to(self, device: str | torch.device) -> Model:
        """Move the network; "auto" takes an accelerator when there is one."""
        self.device = engine.pick_device(device)
        self._prepared.clear()
        self.checkpoint.network.to(self.device)
        return self

    def tau(
        self, steps: int | None = 20, spacing: str | Sequence[int] = "uniform", *, solver: str = "ddim"
    ) -> tuple[int, ...]:
        """`ddim.tau` on this model's schedule; "tuned" takes the times `ddim tune` saved for this solver and S.

        ``diffusers`` walks the file's own timestep_spacing and steps_offset.
        """
        return times_named(self.checkpoint, steps, spacing, solver)

    def save_tau(self, times: Sequence[int], solver: str) -> Path:
        """Keep times beside the weights: `tau(len(times) - 1, "tuned", solver=solver)` gives them back.

        Raises:
            Refused: the model is no folder.
        """
        if self.folder is None:
            raise Refused(f"{self.checkpoint.source} is no model folder to keep times in")
        return save_tuned(self.folder, solver, tuple(times), self.checkpoint.identity)

    def labels(self, label: int | Sequence[int] | Tensor | None, n: int) -> Tensor | None:
        """One class an image, int64 (n,), or None for an unconditional network or the null label.

        Raises:
            Refused: a label where there are no classes, outside 0..K-1, or not one an image.
        """
        found = labels_of(label, n, self.num_classes, self.null_label)
        return None if found is None else found.to(self.device)

    def network(self, precision: str = "fp32", compiled: bool = False) -> nn.Module:
        """The network ready to run in that precision, through torch.compile or not; made once and kept."""
        if self.checkpoint.exported is not None:
            return self.checkpoint.exported.checked(precision, self.device, compiled)
        key = engine.pick_precision(precision, self.device), compiled
        if key not in self._prepared:
            self._prepared[key] = engine.prepared(self.checkpoint.network, key[0], compiled=compiled)
        return self._prepared[key]

    def runs_in(self, precision: str) -> str:
        """The number format of a job that asks for this one: "auto" made definite; an exported network has its own."""
        exported = self.checkpoint.exported
        return engine.pick_precision(precision, self.device) if exported is None else exported.precision

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
            label: int64 (B,), from `labels`, or float weights over classes (B, K); None is the null label.
            guidance: weight w of classifier-free guidance; 1 is the plain conditional network.
            clip: clamp x0 into the data's range and re-derive eps; None does what the checkpoint says.
            precision: "fp32", "bf16", "fp16", "fp64" or "auto"; the state and the coefficients stay as x is.
            compiled: through torch.compile; minutes at the first call on a CPU, see `engine.compile_decision`.

        Raises:
            Refused: guidance without a label or without a null label.
        """
        bare = self._guided(self.network(precision, compiled), guidance, label is not None)
        return bound(self._clipped(bare, clip), labels(label))

    def _guided(self, network: nn.Module, guidance: float, labelled: bool) -> Denoiser:
        denoise: Denoiser = self.checkpoint.denoiser(network)
        if guidance == 1.0:
            return denoise
        if not labelled or self.null_label is None:
            need = "a label" if self.null_label is not None else "a model trained with label dropout"
            raise Refused(f"guidance = {guidance} needs {need}")
        return Guided(denoise, guidance, self.null_label)

    def _clipped(self, denoise: Denoiser, clip: bool | None) -> Denoiser:
        if not (self.checkpoint.clips if clip is None else clip):
            return denoise
        return self.checkpoint.clipped(denoise, dynamic=self.checkpoint.thresholding and clip is None)

    def sampler(
        self,
        *,
        steps: int | None = None,
        spacing: str | Sequence[int] = "uniform",
        tau: Sequence[int] | None = None,
        solver: str | Solver[Any] = "ddim",
        eta: float = 0.0,
        label: Labels = None,
        guidance: float = 1.0,
        clip: bool | None = None,
        precision: str = "fp32",
        compiled: bool = False,
    ) -> Sampler:
        """Everything that decides an image, composed once; `.sample(seeds)`, `.encode(x)`, `.decode(z)`, `.recipe`.

        Args:
            steps, spacing: see `ddim.tau`; 20 steps unless said otherwise. `tau` gives the times themselves.
            solver, eta: a name of `solve.SOLVERS` with eta (0 deterministic, 1 DDPM), or a solver object.
            label: one class, one an image, "cycle" (seed modulo the number of classes), {seed: class}, weights over
                classes float (B, K), or None to leave the class open.
            guidance, clip, precision, compiled: see `denoiser`.

        Raises:
            Refused: combinations that make no sense, with the numbers.
        """
        method = solver_asked(solver, eta)
        times = times_asked(self.checkpoint, steps, spacing, tau, solver)
        rule = LabelRule(label, self.num_classes, self.null_label, self.device)
        bare = self._guided(self.network(precision, compiled), guidance, label is not None)
        recipe = {
            "weights": self.weights_hash, "reading": self.checkpoint.reading, "tau": list(times),
            "steps": len(times) - 1, "solver": solver if isinstance(solver, str) else repr(solver), "eta": eta,
            "label": rule.as_json(), "guidance": guidance, "clip": clip, "precision": self.runs_in(precision),
            "device": self.device.type, "version": VERSION, **({"compiled": True} if compiled else {}),
        }  # fmt: skip
        return Sampler(self._clipped(bare, clip), bare, rule, method, times, self.space, self.device, recipe)

    def sample(
        self, n: int | None = None, *, seed: int = 0, seeds: Sequence[int] | None = None,
        latents: Tensor | None = None, batch_size: int = 64, **how: Unpack[How],
    ) -> Tensor:  # fmt: skip
        """n images, float (n, C, H, W) in [-1, 1] (not clamped). Image i depends on its seed alone.

        Args:
            n, seed: seeds seed..seed+n-1; or `seeds`: these; or `latents`: start from these x_T (n, C, H, W).
            batch_size: images a network call; does not change the noise of any image.
            how: steps, spacing, tau, solver, eta, label, guidance, clip, precision, compiled: see `sampler`.

        Raises:
            Refused: combinations that make no sense, with the numbers.
        """
        wanted = seeds_of(n, seed, seeds, latents, self.shape)
        return self.sampler(**how).sample(wanted, latents=latents, batch_size=batch_size)

    def encode(self, x: Tensor, *, method: Method = "exact", **how: Unpack[How]) -> Latents:
        """Latents of images x (n, C, H, W) in [-1, 1]; see `ddim.encode`. Never clips: that has no inverse.

        how: steps, spacing, tau, label, guidance, precision: see `sampler`.
        """
        return self.sampler(**how).encode(x, method)

    def decode(self, latents: Latents | Tensor, **how: Unpack[How]) -> Tensor:
        """Images of latents; with `Latents`, their own times unless others are given (then it warns).

        how: steps, spacing, tau, label, guidance, precision: see `sampler`.
        """
        others = how.get("steps") or how.get("tau") or how.get("spacing", "uniform") != "uniform"
        if isinstance(latents, Latents) and not others:
            how["tau"] = latents.recipe.tau
        return self.sampler(**how).decode(latents)
