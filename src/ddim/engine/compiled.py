"""torch.compile: what it needs, what it costs and buys, and the network that goes through it."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ddim.refused import Refused

When = Literal["auto", "always", "never"]

# What compilation costs and buys, from docs/engine.md: seconds, and the share of a call it saves.
COMPILE_SECONDS = {"cpu": 227.0, "cuda": 90.0}
COMPILE_SAVES = {"cpu": 0.02, "cuda": 0.25}  # cuda: assumptions, never measured


class Compiled(nn.Module):
    """A network through torch.compile: weights frozen into the code on a CPU, CUDA graphs at fixed shapes on CUDA.

    If the first call cannot be compiled, it warns with the reason and runs the network as it is from then on.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network, self.device = network, device
        self.reason = why_not_compiled(device)
        self.fast: Any = None
        if self.reason is None and device.type == "cuda":
            self.fast = torch.compile(network, dynamic=False, mode="reduce-overhead")
        elif self.reason is None:
            self.fast = torch.compile(network, dynamic=False, options={"freezing": True})
        else:
            self._say()

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        if self.fast is not None:
            from torch._dynamo.exc import TorchDynamoException
            from torch._inductor.exc import InductorError

            try:
                made: Tensor = self.fast(*args, **kwargs)
            except (TorchDynamoException, InductorError) as error:
                self.fast, self.reason = None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                self._say()
            else:
                # A CUDA graph writes its next result over this one.
                return made.clone() if made.is_cuda else made
        plain: Tensor = self.network(*args, **kwargs)
        return plain

    def __reduce__(self) -> Any:
        """Compiled code stays where it is: a copy compiles anew."""
        return type(self), (self.network, self.device)

    def _say(self) -> None:
        warnings.warn(f"the network runs uncompiled: {self.reason}", RuntimeWarning, stacklevel=3)


def why_not_compiled(device: torch.device) -> str | None:
    """What torch.compile lacks there, or None."""
    if device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "torch.compile needs a C++ compiler on a CPU and none was found"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "torch.compile needs triton on CUDA and it is not installed"
    if device.type not in COMPILE_SECONDS:
        return f"torch.compile was not tried on {device.type}"
    return None


class Decision(NamedTuple):
    """Whether to compile, and why, for people."""

    compile: bool
    why: str


def compile_decision(when: str, *, calls: int, seconds_a_call: float, device: torch.device) -> Decision:
    """Compile if calls * seconds_a_call * (share saved) exceeds the time compilation takes.

    Args:
        when: "auto" estimates; "always" and "never" are obeyed, save that what cannot be done is not.
        calls: network calls still to come; seconds_a_call: measured on one of them, uncompiled.

    Raises:
        Refused: another word.
    """
    if when not in ("auto", "always", "never"):
        raise Refused(f"compile is auto, always or never; got {when!r}")
    obstacle = why_not_compiled(device)
    if when == "never" or obstacle:
        return Decision(False, obstacle or "compilation was forbidden")
    if when == "always":
        return Decision(True, "compilation was asked for")
    saved, cost = calls * seconds_a_call * COMPILE_SAVES[device.type], COMPILE_SECONDS[device.type]
    word = "pays" if saved > cost else "does not pay"
    why = f"compiling {word}: about {saved:.0f} s saved in {calls} calls against about {cost:.0f} s of compiling"
    return Decision(saved > cost, why)
