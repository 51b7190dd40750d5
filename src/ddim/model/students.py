"""Students are walked on their own times by their own rule; anything else has to be asked for explicitly."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from ddim.checkpoints import Checkpoint, Student
from ddim.model.asked import solver_asked, times_asked
from ddim.process import Process, Time, tau, usual_spacing
from ddim.refused import Refused
from ddim.solve import DDIM, Fresh, Solver

NAMES = ("auto", "uniform", "trailing", "diffusers")  # the usual ones, and its own under two names


def walk_asked(
    checkpoint: Checkpoint,
    steps: int | None,
    spacing: str | Sequence[Time],
    times: Sequence[Time] | None,
    solver: str | Solver[Any],
    eta: Any,
) -> tuple[tuple[Any, ...], Solver[Any]]:
    """Times and solver of a walk as asked for; those of a student are its own unless `tau` gives the times themselves.

    Raises:
        Refused: a number of steps, a spacing or a solver that a student has not learnt, with the reason.
    """
    student = checkpoint.student
    method = solver_asked(solver, eta)
    if student is None:
        return times_asked(checkpoint, steps, spacing, times, solver), method
    explicit = times is not None or not isinstance(spacing, str)
    own = Fresh() if student.consistent else DDIM()
    if method not in (DDIM(), own) and (student.consistent or not explicit):
        raise Refused(
            f"a {student.kind} student has its own way to step: its answers are whole jumps, no slopes, so no other "
            "`solver` or `eta` fits; leave them out"
        )
    method = own if student.consistent else method
    if explicit:
        return times_asked(checkpoint, steps, spacing, times, solver), method
    if spacing not in NAMES:
        raise Refused(f"a student has its own times {list(student.tau)}: leave `spacing` out, or give times by `tau`")
    return _own(student, steps, checkpoint.process), method


def student_times(process: Process, steps: int) -> tuple[Any, ...]:
    """The times of a teacher's walk, of which its students take every so many, and those of a consistency student.

    "trailing" on a schedule, which diffusers walks as well where the steps divide T; the usual ones elsewhere.
    """
    return tau(process, steps, "trailing" if process.discrete else usual_spacing(process))


def through(process: Process, own: Sequence[Time], parts: int) -> tuple[Any, ...]:
    """The times of a teacher's walk whose student has the times `own`: each of its steps in so many even parts.

    Raises:
        Refused: times that are none of the process's or do not begin at its noisiest; a step too short to be divided.
    """
    times = tau(process, len(own) - 1, list(own))
    if times[0] != student_times(process, 1)[0]:
        raise Refused(f"a student begins at pure noise, t = {student_times(process, 1)[0]}: `tau` begins at {times[0]}")
    walk = [t + (s - t) * i / parts for t, s in itertools.pairwise(times) for i in range(parts)]
    if process.discrete:
        walk = [round(t) for t in walk]
        if len(set(walk) | {0}) <= len(walk):
            raise Refused(f"`tau` {list(times)} has a step that {parts} of the teacher's do not fit in: take fewer")
    return (*walk, times[-1])


def _own(student: Student, steps: int | None, process: Process) -> tuple[Any, ...]:
    if steps is None or steps == student.steps:
        return student.tau
    if student.consistent:
        if 1 <= steps <= student.steps:
            return student_times(process, steps)
        raise Refused(f"this consistency student was made for 1 to {student.steps} calls, got `steps` = {steps}")
    raise Refused(
        f"this student takes {student.steps} {'step' if student.steps == 1 else 'steps'}, {list(student.tau)}: it has "
        f"learnt these jumps and no others, so `steps` = {steps} would walk where it was never taught; leave `steps` "
        "out, or give the times themselves by `tau`"
    )
