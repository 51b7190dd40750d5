"""The state of a training run and its checkpoints: everything step n + 1 needs, in one file written at once.

Files are state/step-00000500.pt. They are read as any stranger's checkpoint is (`checkpoints.read_torch`): tensors and
numbers, never code, and every checksum is checked.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch

from ddim.checkpoints import read_torch
from ddim.engine import pick_device, pick_precision
from ddim.files import Hold, whole_file
from ddim.jobs.train.pace import Pace
from ddim.jobs.train.recipe import Recipe
from ddim.nets import DiffusersNetwork, Ema, Powers, build
from ddim.refused import Refused
from ddim.stored import is_whole

if TYPE_CHECKING:
    from accelerate import Accelerator


STATE, KEPT = "state", 2  # the folder of a run's checkpoints; how many
DEVICE = "ACCELERATE_TORCH_DEVICE"  # the one way accelerate is told a device by its number
SPLITTING = {"FSDP": "FSDP", "DEEPSPEED": "DeepSpeed", "MEGATRON_LM": "Megatron-LM"}  # as accelerate is asked for them
M = TypeVar("M", bound=torch.nn.Module)
_NAME = re.compile(r"step-(\d{8})\.pt")


class Retreat(NamedTuple):
    """That a run diverged at step `since`, went back to step `to`, and goes on at `factor` of its recipe's rate."""

    since: int
    to: int
    factor: float


@dataclass
class TrainState(Generic[M]):
    """A run at one step. `network` is what accelerate prepared, `unwrapped` the module itself.

    powers: averages of which snapshots are kept; None where nobody wants them.
    """

    unwrapped: M
    network: torch.nn.Module
    optimizer: Any
    ema: Ema
    accelerator: Accelerator
    recipe: Pace
    step: int = 0
    smooth_loss: float = math.nan
    best_loss: float = math.inf
    high_steps: int = 0
    hold: Hold | None = None
    powers: Powers | None = None
    notes: list[str] = field(default_factory=list)  # what to tell people of how it was begun
    retreat: Retreat | None = None

    @property
    def lr(self) -> float:
        """The rate of the next step."""
        return self.recipe.lr_at(self.step) * (1.0 if self.retreat is None else self.retreat.factor)


def resolve_precision(precision: str, device: str = "auto") -> str:
    """ "auto" is bf16 where the hardware has it (see `engine.has_fast_bf16`), else fp32; weights stay fp32.

    Raises:
        Refused: fp16 on the CPU, where it is slower and overflows; an unknown name.
    """
    where = pick_device(device)
    if precision == "auto":
        return pick_precision("auto", where)
    if precision not in ("fp32", "bf16", "fp16"):
        raise Refused(f"precision is auto, fp32, bf16 or fp16; got {precision!r}")
    if precision == "fp16" and where.type == "cpu":
        raise Refused("fp16 training needs an accelerator; on the CPU use `precision` fp32 or bf16")
    return precision


def new_network(recipe: Recipe, preset: str, shape: tuple[int, int, int], num_classes: int | None) -> DiffusersNetwork:
    """The network of that name for a recipe, before its first step.

    Raises:
        Refused: see `nets.build`.
    """
    score = recipe.prediction == "score"
    unet = build(preset, shape=shape, num_classes=num_classes, seed=recipe.seed, fourier=score)
    return DiffusersNetwork(unet, num_classes)


def new_state(
    recipe: Recipe, preset: str, shape: tuple[int, int, int], num_classes: int | None, device: str = "auto"
) -> TrainState[DiffusersNetwork]:
    """A run of that network before its first step.

    Raises:
        Refused: see `nets.build` and `state_of`.
    """
    return state_of(new_network(recipe, preset, shape, num_classes), recipe, device)


def state_of(module: M, recipe: Pace, device: str = "auto") -> TrainState[M]:
    """A run of any module before its first step: optimizer and average, prepared by accelerate for this machine.

    Raises:
        Refused: a batch that cannot be shared equally by all processes; a device that accelerate does not train on;
            accelerate is configured to split weights.
    """
    accelerator = accelerator_for(recipe.precision, device)
    shares = recipe.accumulation * accelerator.num_processes
    if recipe.batch_size % shares:
        raise Refused(
            f"batch_size = {recipe.batch_size} cannot be shared by {accelerator.num_processes} processes "
            f"x {recipe.accumulation} parts; make it a multiple of {shares}"
        )
    unwrapped = module.to(accelerator.device)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    optimizer = kind(unwrapped.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    ema = Ema(unwrapped, recipe.ema)
    network, prepared = accelerator.prepare(unwrapped, optimizer)
    return TrainState(unwrapped, network, prepared, ema, accelerator, recipe)


def accelerator_for(precision: str, device: str) -> Accelerator:
    """accelerate's view of this machine; under torchrun the processes wait here until all have come.

    Raises:
        Refused: a device that accelerate does not train on.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    where = pick_device(device)
    for word, name in SPLITTING.items():
        if os.environ.get(f"ACCELERATE_USE_{word}", "false").lower() == "true":
            raise Refused(
                f"accelerate is configured for {name}, which splits a network's weights among processes; checkpoints "
                "and averages need them whole here: configure DDP (MULTI_GPU), or split the batch with `accumulation`"
            )
    alone = not torch.distributed.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) == 1
    # Precision and device are fixed per Python process otherwise; a library must not impose that.
    AcceleratorState._reset_state(reset_partial_state=alone)
    with _told(str(where)) if alone and device != "auto" else contextlib.nullcontext():
        accelerator = Accelerator(
            mixed_precision={"fp32": "no"}.get(precision, precision), cpu=where.type == "cpu"
        )  # fmt: skip
    found = accelerator.device
    if found.type != where.type or (where.index is not None and where.index != (found.index or 0)):
        raise Refused(
            f"`device` {device} was asked for, but accelerate would train on {found}; "
            f"give `device` {found.type}, and choose the devices in the environment (CUDA_VISIBLE_DEVICES)"
        )
    return accelerator


@contextlib.contextmanager
def _told(device: str) -> Iterator[None]:
    before = os.environ.get(DEVICE)
    os.environ[DEVICE] = device
    try:
        yield
    finally:
        if before is None:
            del os.environ[DEVICE]
        else:
            os.environ[DEVICE] = before


def save_checkpoint(folder: Path, state: TrainState[Any]) -> Path:
    """Write folder/step-N.pt, whole or not at all, then drop all but the newest two."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state.step:08d}.pt"
    scaler = state.accelerator.scaler
    content = {
        "network": state.unwrapped.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "ema": state.ema.shadow,
        "ema_updates": state.ema.updates,
        "powers": state.powers.state_dict() if state.powers is not None else None,
        "scaler": scaler.state_dict() if scaler is not None else None,
        "step": state.step,
        "losses": [state.smooth_loss, state.best_loss, state.high_steps],
        "retreat": None if state.retreat is None else list(state.retreat),
    }
    with whole_file(path) as partial, partial.open("wb") as file:  # of a path torch would keep the name
        torch.save(content, file)
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a state folder, oldest first."""
    return sorted(p for p in folder.glob("step-*.pt") if _NAME.fullmatch(p.name))


def step_of(path: Path) -> int:
    """The step of a checkpoint, by its name."""
    return int(path.stem.removeprefix("step-"))


def _refuse_no_numbers(content: Any) -> None:
    """What is no counter would be met steps later."""
    losses, back = content["losses"], content.get("retreat") or [0, 0, 1.0]
    counters = [content["step"], content["ema_updates"], losses[2], *back[:2]]
    told = len(losses) == len(back) == 3 and all(isinstance(v, float) for v in [*losses[:2], back[2]])
    if not (told and all(is_whole(v, 0) for v in counters)):
        raise ValueError("its counters and losses are no numbers")


def load_checkpoint(path: Path, state: TrainState[Any]) -> None:
    """Put a checkpoint into a fresh state of the same recipe.

    Raises:
        Refused: damaged, or of another network; names the file.
    """
    content = read_torch(path)
    try:
        _refuse_no_numbers(content)
        state.unwrapped.load_state_dict(content["network"])
        state.optimizer.load_state_dict(content["optimizer"])
        for name, value in state.ema.shadow.items():
            value.copy_(content["ema"][name])
        state.ema.updates, state.step = content["ema_updates"], content["step"]
        state.smooth_loss, state.best_loss, state.high_steps = content["losses"]
        state.retreat = Retreat(*content["retreat"]) if content.get("retreat") else None
        powers = content.get("powers")  # a run of an older version has none
        state.powers = Powers.of(state.unwrapped, powers) if powers else None
        if state.accelerator.scaler is not None and content["scaler"]:
            state.accelerator.scaler.load_state_dict(content["scaler"])
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Refused(f"checkpoint {path} is none of this run ({reason})") from None
