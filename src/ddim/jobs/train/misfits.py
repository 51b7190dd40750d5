"""What a training recipe says of its process, checked: a schedule of whole times and a continuous one differ."""

from __future__ import annotations

from typing import Protocol

from ddim.process import DRAWS, KINDS, PARAMETERISATIONS, process_of
from ddim.refused import Refused

DDPM = "ddpm"
PREDICTIONS = ("eps", "x0", "v")  # what networks on a schedule of whole times are trained to say
NO_SIGNAL = ("eps", "score")  # predictions that do not tell x0 where there is no signal, as at the end of a flow


class OnProcess(Protocol):
    """What is checked of a recipe."""

    @property
    def process(self) -> str: ...
    @property
    def prediction(self) -> str | None: ...
    @property
    def draws(self) -> str | None: ...
    @property
    def sigma_min(self) -> float | None: ...
    @property
    def sigma_max(self) -> float | None: ...
    @property
    def data_std(self) -> float: ...
    @property
    def schedule(self) -> str: ...
    @property
    def zero_terminal_snr(self) -> bool: ...


def refuse_misfits(recipe: OnProcess) -> None:
    """Nothing is asked of one kind of process that only the other has.

    Raises:
        Refused: something is; names it.
    """
    if recipe.data_std <= 0.0:
        raise Refused(f"data_std must be above 0, got {recipe.data_std}")
    if recipe.process == DDPM:
        _on_whole_times(recipe)
    else:
        _on_real_times(recipe)


def _on_whole_times(recipe: OnProcess) -> None:
    if recipe.prediction in PARAMETERISATIONS and recipe.prediction not in PREDICTIONS:
        raise Refused(f"prediction {recipe.prediction} is of a continuous process: give `process` {', '.join(KINDS)}")
    if recipe.prediction not in PREDICTIONS:
        raise Refused(f"unknown prediction {recipe.prediction!r}; choose one of {', '.join(PREDICTIONS)}")
    for name in ("draws", "sigma_min", "sigma_max"):
        if getattr(recipe, name) is not None:
            raise Refused(f"{name} is of a continuous process: give `process` {', '.join(KINDS)}")


def _on_real_times(recipe: OnProcess) -> None:
    for name, usual in (("schedule", "linear"), ("zero_terminal_snr", False)):
        if getattr(recipe, name) != usual:
            raise Refused(f"{name} is of whole times, and process {recipe.process} has real ones: leave it out")
    if recipe.draws is not None and recipe.draws not in DRAWS:
        raise Refused(f"unknown draws {recipe.draws!r}; choose one of {', '.join(DRAWS)}")
    process = process_of(recipe.process)
    if recipe.prediction in NO_SIGNAL and process.at(process.T).signal == 0.0:
        raise Refused(
            f"prediction {recipe.prediction} does not tell the image where process {recipe.process} has no signal; "
            "give `prediction` velocity, v or x0"
        )
