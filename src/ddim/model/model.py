"""`Model`: a checkpoint with its defaults, and the one place that turns names into objects.

Every method builds the pieces of the lower floors and calls them; nothing here knows any maths.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Unpack

from torch import Tensor, nn

from ddim.denoise import Denoiser, Interval, bound, labels
from ddim.files import VERSION
from ddim.model.asked import (
    UNSAID,
    Eta,
    LabelRule,
    Labels,
    eta_asked,
    seeds_of,
)
from ddim.model.beside import Steering, Weight
from ddim.model.own import OwnFacts, own_checkpoint
from ddim.model.ready import Ready
from ddim.model.sampler import Sampler
from ddim.model.students import walk_asked
from ddim.model.told import How, Nulls, Told, ToldRule, clipped, guided, refuse_untold
from ddim.process import Process, Time
from ddim.solve import Solver
from ddim.uses import Latents, Method, Tell


class Model(Ready):
    """A trained network ready to use; `load` makes it.

    Attributes:
        checkpoint: what was found and what was assumed; `ddim info` prints it.
        schedule, prediction, shape (C, H, W), num_classes, null_label, space: as the checkpoint says.
    """

    @classmethod
    def from_network(cls, network: nn.Module, schedule: Process, **facts: Unpack[OwnFacts]) -> Model:
        """A network of your own as a model: everything that takes a model takes it.

        Args:
            network: network(x, t) or, with `num_classes`, network(x, t, label) -> tensor, or an object with `.sample`;
                other conditions come by name. x (B, *shape) in `data_range`, t int64 (B,) 0-based (on a
                continuous process float32, what `time_label` says), label int64 (B,)
                or None. It is put into eval mode.
            schedule: the process it was trained on, a `Schedule` or a continuous one.
            facts: shape (C, H, W) of one image, and whatever is not as usual: see `OwnFacts`.

        Raises:
            Refused: a network that is no torch.nn.Module, or facts that contradict one another.
        """
        made = cls(own_checkpoint(network, schedule, **facts))
        return made.to(next((p.device for p in network.parameters()), made.device))

    def tau(
        self, steps: int | None = None, spacing: str | Sequence[Time] = "auto", *, solver: str = "ddim"
    ) -> tuple[Any, ...]:
        """`ddim.tau` on this model's process; "tuned" takes the times `ddim tune` saved for this solver and S.

        ``auto`` is "edm" on the process of that name, whose time is the noise itself, and "uniform" elsewhere;
        ``diffusers`` walks the file's own timestep_spacing and steps_offset.
        20 steps unless said otherwise; a student has its own.
        """
        return walk_asked(self.checkpoint, steps, spacing, None, solver, 0.0)[0]

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
        network = self.network(precision, compiled)
        bare = guided(self.checkpoint, network, guidance, labelled=label is not None, null=None)
        return bound(clipped(self.checkpoint, bare, clip), labels(label))

    def sampler(
        self, *, steps: int | None = None, spacing: str | Sequence[Time] = "auto", tau: Sequence[Time] | None = None,
        solver: str | Solver[Any] = "ddim", eta: Eta = 0.0,
        label: Labels = None, conditions: Told | None = None,
        guidance: Weight = 1.0, interval: Interval | None = None, guide: Ready | None = None,
        null: Nulls | None = None, early: Ready | None = None, at: Time | None = None,
        clip: bool | None = None, precision: str = "fp32", compiled: bool = False,
    ) -> Sampler:  # fmt: skip
        """Everything that decides an image, composed once; `.sample(seeds)`, `.encode(x)`, `.decode(z)`, `.recipe`.

        Args:
            steps, spacing: see `ddim.tau`; 20 steps unless said otherwise, a student's own. `tau` gives the times
                themselves.
            solver, eta: a name of `SOLVERS` with eta (0 deterministic, 1 DDPM; for all, or one an image), or a
                solver object.
            label: one class, one an image, "cycle" (seed modulo the number of classes), {seed: class}, weights over
                classes float (B, K), or None to leave the class open.
            conditions: what else a network of your own takes, by name, one row an image or shared by all; or a rule
                seeds -> `Conditions`, for jobs, which make batches.
            guidance, null: weight of classifier-free guidance, and what stands for "no condition", by name, where
                that is not the class alone: {"text": tensor of the shape of one row}. "tuned" takes the weight and
                interval that `ddim tune` saved for this solver, number of steps and guide.
            guide: another model by which to guide in place of the null label (arXiv 2406.02507): an early checkpoint
                of the same run, or a smaller network; of the same process, shape and classes. See `Autoguided`.
            interval: (low, high), guide only while low <= t <= high.
            early, at: another model, of the same process, shape and classes, for t > at. See `Stitched`. Without `at`
                the hand-over that `ddim tune` saved.
            clip, precision, compiled: see `denoiser`.

        Raises:
            Refused: combinations that make no sense, with the numbers.
        """
        eta = eta_asked(eta)
        times, method = walk_asked(self.checkpoint, steps, spacing, tau, solver, eta)
        rule = LabelRule(label, self.num_classes, self.null_label, self.device)
        told = ToldRule(rule, conditions, self.device)
        steering = Steering.of(
            self, guidance, interval, guide, null, early, at, labelled=label is not None, steps=len(times) - 1,
            solver=solver if isinstance(solver, str) else "ddim",
        )  # fmt: skip
        for one in (self, guide, early):
            if one is not None:
                refuse_untold(one.checkpoint, conditions)
        bare, denoise = steering.denoisers(
            self, labelled=label is not None, clip=clip, precision=precision, compiled=compiled
        )
        method.suits(bare)
        recipe = {
            "weights": self.weights_hash, "reading": self.checkpoint.reading, "tau": list(times),
            "steps": len(times) - 1, "solver": solver if isinstance(solver, str) else repr(solver), "eta": eta,
            "label": rule.as_json(), "guidance": steering.weight, "clip": clip, "precision": self.runs_in(precision),
            "device": self.device.type, "version": VERSION, **({"compiled": True} if compiled else {}),
            **({} if conditions is None else {"conditions": told.as_json()}), **steering.as_json(),
            **({"variance": bare.variance} if method.needs_variance else {}),
        }  # fmt: skip
        again = None
        if recipe["precision"] in ("bf16", "fp16"):
            again = partial(
                steering.denoisers, self, labelled=label is not None, clip=clip, precision="fp32", compiled=False
            )
        return Sampler(denoise, bare, told, method, times, self.space, self.device, recipe, again)

    def sample(
        self, n: int | None = None, *, seed: int = 0, seeds: Sequence[int] | None = None,
        latents: Tensor | None = None, batch_size: int = 64, progress: Tell | None = None, **how: Unpack[How],
    ) -> Tensor:  # fmt: skip
        """n images, float (n, C, H, W) in [-1, 1] (not clamped). Image i depends on its seed alone.

        Args:
            n, seed: seeds seed..seed+n-1; or `seeds`: these; or `latents`: start from these x_T (n, C, H, W).
            batch_size: images a network call; does not change the noise of any image.
            progress: called with the network calls done and those of the whole walk, each counted once an image.
            how: steps, spacing, tau, solver, eta, label, conditions, guidance, interval, guide, null, early, at, clip,
                precision, compiled: see `sampler`.

        Raises:
            Refused: combinations that make no sense, with the numbers.
        """
        wanted = seeds_of(n, seed, seeds, latents, self.shape)
        return self.sampler(**how).sample(wanted, latents=latents, batch_size=batch_size, progress=progress)

    def encode(
        self, x: Tensor, *, method: Method = "exact", start: Time | None = None, progress: Tell | None = None,
        **how: Unpack[How],
    ) -> Latents:  # fmt: skip
        """Latents of images x (n, C, H, W) in [-1, 1]; see `ddim.encode`. Never clips: that has no inverse.

        start, progress: see `ddim.encode`. how: steps, spacing, tau, label, conditions, guidance, null, precision, ..:
        see `sampler`.
        """
        return self.sampler(**how).encode(x, method, start=start, progress=progress)

    def decode(self, latents: Latents | Tensor, **how: Unpack[How]) -> Tensor:
        """Images of latents; with `Latents`, their own times unless others are given (then it warns).

        how: steps, spacing, tau, label, conditions, guidance, null, precision, ..: see `sampler`.
        """
        spacing = how.get("spacing", "auto")
        named = isinstance(spacing, str) and spacing in UNSAID
        others = how.get("steps") or how.get("tau") is not None or not named
        if isinstance(latents, Latents) and not others:
            how["tau"] = latents.recipe.tau
        return self.sampler(**how).decode(latents)
