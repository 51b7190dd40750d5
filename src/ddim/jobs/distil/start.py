"""From how many steps a teacher is good enough to begin with, measured on its own latents."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ddim.model import Model, student_times
from ddim.refused import Refused

LATENTS, LONG, NEAR, MOST = 16, 64, 0.06, 64


def fewer(model: Model, steps: int) -> int:
    """That many steps, or as many as the model's schedule has."""
    return min(steps, model.process.T) if model.process.discrete else steps


def good_start(
    teacher: Model, least: int, solver: str = "ddim", guidance: float = 1.0,
    tell: Callable[[str], None] = lambda words: None,
) -> int:  # fmt: skip
    """The smallest power of two from 2 `least` on at which the teacher's pictures are those of a long walk.

    That is where the RMS difference to 64 steps of dpm++2m from the same 16 latents, in pictures in [-1, 1], is at most
    0.06: measured on the bundled digits, DDIM has .114, .058 and .030 at 8, 16 and 32 steps.

    Args:
        teacher: the model. least: steps that shall be reached. solver, guidance: as it will teach.
        tell: hears what was measured.

    Raises:
        Refused: none up to 64 is.
    """

    def walked(by: str, steps: int) -> Tensor:
        return teacher.sampler(
            tau=student_times(teacher.process, steps), solver=by, guidance=guidance, precision="auto",
            label="cycle" if teacher.num_classes else None,
        ).sample(range(LATENTS))  # fmt: skip

    long = walked("dpm++2m", fewer(teacher, LONG))
    steps = 2
    while steps < 2 * least:
        steps *= 2
    while steps <= fewer(teacher, MOST):
        apart = float((walked(solver, steps) - long).square().flatten(1).mean(1).sqrt().mean())
        tell(f"{steps} steps of the teacher are {apart:.3f} from its long walk")
        if apart <= NEAR:
            return steps
        steps *= 2
    raise Refused(f"no walk of up to {MOST} steps of this teacher is near its long one: give the steps to begin with")
