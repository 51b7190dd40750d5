"""`ddim.load(...)` and the `Model` it returns: the one place that turns names into objects.

A model is a checkpoint (network, process, meaning of the output) plus defaults. Every method builds the
pieces of the lower floors and calls them; nothing here knows any maths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor, nn

from ddim import engine
from ddim.checkpoints import Checkpoint, load_tuned, open_checkpoint, save_tuned
from ddim.denoise import Denoiser, Guided, bound, labels
from ddim.files import VERSION
from ddim.model.asked import LabelRule, Labels, labels_of, seeds_of
from ddim.model.sampler import Sampler
from ddim.nets import OwnNetwork
from ddim.process import Schedule, tau
from ddim.refused import Refused
from ddim.solve import Solver, solver_named
from ddim.uses import Latents, Method

BUNDLED = Path(__file__).parent.parent / "bundled"
DEFAULT = "mnist"


class How(TypedDict, total=False):
    """The keywords of `Model.sampler`, for those who pass them on."""

    steps: int | None
    spacing: str | Sequence[int]
    tau: Sequence[int] | None
    solver: str | Solver[Any]
    eta: float
    label: Labels
    guidance: float
    clip: bool | None
    precision: str
    compiled: bool


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
        Refused, OSError: nothing there, or not readable as a model; one line with the remedy.
    """
    bundled = str(source) in bundled_names() and not (Path(source) / "model_index.json").exists()
    place = BUNDLED / str(source) if bundled else source
    return Model(open_checkpoint(place, family=family, config=config)).to(device)


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
    def from_network(
        cls,
        network: nn.Module,
        schedule: Schedule,
        *,
        shape: tuple[int, int, int],
        prediction: str = "eps",
        num_classes: int | None = None,
        null_label: int | None = None,
        labels: Sequence[str] | None = None,
        clips: bool = False,
        data_range: tuple[float, float] = (-1.0, 1.0),
        learned_variance: bool = False,
        time_scale: float = 1.0,
    ) -> Model:
        """A network of your own as a model: everything that takes a model takes it.

        Args:
            network: network(x, t) or network(x, t, label) -> tensor, or an object with `.sample`; x (B, *shape) in
                `data_range`, t int64 (B,) 0-based, label int64 (B,) or None.
            schedule: the one it was trained on.
            shape: (C, H, W) of one image.
            prediction: "eps", "x0" or "v".
            num_classes, null_label, labels: real classes 0..K-1, the label that means "any class", their names.
            clips, data_range, learned_variance, time_scale: see `checkpoints.Checkpoint`.

        Raises:
            Refused: a network that is no torch.nn.Module, or facts that contradict one another.
        """
        if not isinstance(network, nn.Module):
            raise Refused(f"a model needs a torch.nn.Module (its weights name it); got {type(network).__name__}")
        if null_label is not None and num_classes is None:
            raise Refused(f"null_label = {null_label} says that there are classes: give num_classes")
        if labels is not None and len(labels) != num_classes:
            raise Refused(f"{len(labels)} label names for {num_classes} classes")
        own = OwnNetwork(network, num_classes is not None, null_label)
        return cls(Checkpoint(
            network=own.eval(), schedule=schedule, prediction=prediction, shape=shape, family="own",
            source=type(network).__name__, sha256=own.weights_hash(), num_classes=num_classes, null_label=null_label,
            labels=None if labels is None else tuple(labels), learned_variance=learned_variance, time_scale=time_scale,
            clips=clips, data_range=data_range,
        ))  # fmt: skip

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

    # -- names into objects ---------------------------------------------------------------------------

    def tau(
        self, steps: int | None = 20, spacing: str | Sequence[int] = "uniform", *, solver: str = "ddim"
    ) -> tuple[int, ...]:
        """`ddim.tau` on this model's schedule; "tuned" takes the times `ddim tune` saved for this solver and S.

        ``diffusers`` walks the file's own timestep_spacing and steps_offset.
        """
        if spacing == "tuned":
            return tau(
                self.schedule.T, steps, load_tuned(self.checkpoint.folder, solver, steps, self.checkpoint.identity)
            )
        if spacing == "diffusers":
            return self.checkpoint.own_tau(steps)
        offset = self.checkpoint.steps_offset if spacing == "leading" else 0
        return tau(self.schedule.T, steps, spacing, alpha_bar=self.schedule.alpha_bar.tolist(), offset=offset)

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

    def guided(self, weight: float, precision: str = "fp32") -> Denoiser:
        """The network under classifier-free guidance, its label still to be given; no clip."""
        return self._guided(self.network(precision), weight, True)

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

    # -- uses -----------------------------------------------------------------------------------------

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
        method = solver_named(solver, eta) if isinstance(solver, str) else solver
        if not isinstance(solver, str) and eta:
            raise Refused(f"eta = {eta} belongs to the solver object: give it there")
        times = self._times(steps, spacing, tau, solver)
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

    def _times(
        self,
        steps: int | None,
        spacing: str | Sequence[int],
        times: Sequence[int] | None,
        solver: str | Solver[Any],
    ) -> tuple[int, ...]:
        if times is not None:
            if spacing != "uniform":
                raise Refused(f"tau names the times and spacing = {spacing!r} would too: give one of them")
            if self.checkpoint.ends_at and times[-1] == self.checkpoint.ends_at:
                return tau(self.schedule.T, None, (*times, 0))[:-1]  # the file's own walk, which stops early
            return tau(self.schedule.T, steps, times)
        explicit = not isinstance(spacing, str)
        name = solver if isinstance(solver, str) else "ddim"
        return self.tau(steps if explicit or steps is not None else 20, spacing, solver=name)
