"""What a student of fewer steps has to say at x_t, so that one step of its takes it where its teacher's several do."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddim.denoise import NONE, Conditions, Denoiser
from ddim.process import Prediction, Time, ddim_step, landing, level_at
from ddim.refused import Refused
from ddim.solve import DDIM, Solver, end_of, trajectory


def progressive_target(
    denoise: Denoiser, x_t: Tensor, *times: Time | Tensor, conditions: Conditions = NONE
) -> Prediction:
    """The pair whose one DDIM step from the first time to the last lands where the teacher's steps do.

    progressive_target(denoise, x_t, t, m, s): two steps t -> m -> s, then x0 = (x_s - (b_s/b_t) x_t) /
    (a_s - (b_s/b_t) a_t) (arXiv 2202.00512, algorithm 2), on any process. More times between are more steps of the
    teacher; (t, s) alone gives back its own pair. Gradients pass unless the caller says torch.no_grad.

    Args:
        denoise: the teacher.
        x_t: states at t, (B, *).
        times: falling, at least two; each one for the whole batch or (B,), the last may be 0, the clean image.

    Raises:
        Refused: fewer than two times, or times that do not fall.
    """
    _refuse_order(times)
    process, x = denoise.process, x_t
    for t, s in itertools.pairwise(times):
        p: Any = denoise(x, t, conditions)
        x = ddim_step(p, level_at(process, t, x), level_at(process, s, x))  # type: ignore[arg-type]  # (B, 1, ..) too
    return landing(x, x_t, level_at(process, times[0], x), level_at(process, times[-1], x))


def walk_target(
    denoise: Denoiser, solver: Solver[Any], x_t: Tensor, times: Sequence[Time], conditions: Conditions = NONE
) -> Prediction:
    """The same where the teacher walks those times by any deterministic solver: the pair that lands where that ends.

    Args:
        times: falling, for the whole batch.

    Raises:
        Refused: a solver that injects noise, which leads to no one place.
    """
    if solver.stochastic:
        raise Refused("a teacher must be deterministic: its solver injects noise, so no x_t leads to one place")
    if solver == DDIM():
        return progressive_target(denoise, x_t, *times, conditions=conditions)
    end = end_of(trajectory(denoise, solver, times, x_t, conditions=conditions))
    return landing(end, x_t, denoise.process.at(times[0]), denoise.process.at(times[-1]))


def _refuse_order(times: Sequence[Time | Tensor]) -> None:
    if len(times) < 2:
        raise Refused(f"a target needs the times of at least one step, got {len(times)}")
    for t, s in itertools.pairwise(times):
        if not bool(torch.as_tensor(torch.as_tensor(t) > torch.as_tensor(s)).all()):
            raise Refused(f"the times of a target must fall, but {t} is followed by {s}")
