"""How the network is run: device, precision, memory layout, prepacking, compilation. Never what it computes.

The state x and all coefficients keep their own precision; only the network's inside changes. `prepared`
works on a copy, so that the weights that were loaded stay as they were. Each switch is kept because it was
measured to help (docs/engine.md says how much, and what was left out because it did not).
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import shutil
import warnings
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ddim.engine.exported import Exported
from ddim.refused import Refused

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
When = Literal["auto", "always", "never"]

# What compilation costs and buys, from docs/engine.md: seconds, and the share of a call it saves.
COMPILE_SECONDS = {"cpu": 227.0, "cuda": 90.0}
COMPILE_SAVES = {"cpu": 0.02, "cuda": 0.25}  # cuda: assumptions, never measured


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; "auto" is the accelerator torch sees, else the CPU.

    Raises:
        Refused: a device this machine does not have.
    """
    if device == "auto":
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return found or torch.device("cpu")
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise Refused(f"device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return picked


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 arithmetic is done in hardware: AVX512-BF16 or AMX on a CPU, a GPU that says so."""
    if device.type == "cpu":
        return bool({"avx512_bf16", "amx_bf16"} & {k for k, v in torch.cpu.get_capabilities().items() if v})
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def pick_precision(precision: str, device: torch.device) -> str:
    """The precision of that name; "auto" is bf16 where the hardware has it, else fp32.

    Raises:
        Refused: an unknown precision.
    """
    if precision == "auto":
        return "bf16" if has_fast_bf16(device) else "fp32"
    if precision not in DTYPES:
        raise Refused(f"precision is auto, {', '.join(DTYPES)}; got {precision!r}")
    return precision


def training_attention(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """How attention runs where gradients follow: as plain matrix products on a CPU, torch's own choice elsewhere.

    The backward pass of torch's fused CPU kernel costs a sixth of a whole step at 49 tokens (docs/engine.md).
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


def prepared(
    network: nn.Module,
    precision: str = "fp32",
    *,
    channels_last: bool | None = None,
    packed: bool | None = None,
    compiled: bool = False,
) -> nn.Module:
    """The network ready to run: in eval mode, in that precision, laid out for this device, optionally compiled.

    Args:
        network: left as it is; what comes back is a copy unless nothing has to change. Where the type of the
            weights stays, the copy shares them.
        precision: "auto", "fp32", "bf16", "fp16" or "fp64": the type of weights and activations.
        channels_last: NHWC memory. Default: where it was measured to help, that is in half precision.
        packed: convolution weights kept in oneDNN's own order beside the plain ones. Default: on a CPU that can.
            On a CPU, half precision gets neither by default if the network has `uneven` widths.
        compiled: run through torch.compile; pays only for very long jobs, see `compile_decision`. Where it
            cannot be done, the network runs as it is and a warning says why.

    Raises:
        Refused: an unknown precision; packing asked for where it cannot be done.
    """
    if isinstance(network, Exported):
        raise Refused("an exported network has no switches: its runtime has settled how it runs")
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    name = pick_precision(precision, device)
    half = name in ("bf16", "fp16")
    plain = half and device.type == "cpu" and uneven(network)
    last = half and not plain if channels_last is None else channels_last
    obstacle = why_not_packed(device, name)
    if packed and obstacle:
        raise Refused(f"convolution weights cannot be packed: {obstacle}")
    pack = obstacle is None and not compiled and not plain if packed is None else packed
    network.eval()
    if name == "fp32" and not last and not compiled and not (pack and _packable(network)):
        return network
    # Module.to converts a shared Parameter in place, so weights are shared only where nothing is converted.
    shared = [*network.parameters(), *network.buffers()] if name == "fp32" and not last else []
    ready = copy.deepcopy(network, {id(t): t for t in shared})
    if not shared:
        ready = ready.to(DTYPES[name])
    if last:
        ready = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    if pack:
        for conv in _packable(ready):
            conv.__class__ = PackedConv2d
    ready.register_forward_hook(_row_major)
    return Compiled(ready, device) if compiled else ready


def uneven(network: nn.Module) -> bool:
    """Whether some convolution has a width that is no multiple of 16, image channels (up to 4) aside.

    oneDNN's bf16 kernels work on blocks of 16 channels: at other widths blocked and NHWC layouts cost more than they
    save (docs/engine.md).
    """
    convs = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    return any(width > 4 and width % 16 for m in convs for width in (m.in_channels, m.out_channels))


def _row_major(_module: nn.Module, _args: Any, out: Any) -> Any:
    """The state stays row-major (view, safetensors and a caller's own code need it) whatever runs inside."""
    return out.contiguous() if isinstance(out, Tensor) else out


def why_not_packed(device: torch.device, precision: str) -> str | None:
    """What keeps convolution weights from being packed there, or None."""
    if device.type != "cpu" or precision not in ("fp32", "bf16"):
        return f"only fp32 and bf16 on a CPU have packed weights, not {precision} on {device.type}"
    if not (torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")):
        return "this build of torch has no oneDNN"
    if precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "oneDNN has no bf16 on this CPU"
    return None


def _packable(network: nn.Module) -> list[nn.Conv2d]:
    """The plain convolutions; a subclass, or one that is hooked, may do something else and is left alone."""
    found = [m for m in network.modules() if type(m) is nn.Conv2d and not (m._forward_hooks or m._forward_pre_hooks)]
    fine = (torch.float32, torch.bfloat16)
    return [
        m for m in found if m.padding_mode == "zeros" and m.padding not in ("same", "valid") and m.weight.dtype in fine
    ]


class PackedConv2d(nn.Conv2d):
    """A convolution with its weight also in oneDNN's blocked order, so that no call of that shape reorders it again.

    Where gradients are wanted, or the input is of another type or device, it is a plain convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        grad = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        if grad or x.dtype != self.weight.dtype or x.device.type != "cpu" or x.ndim != 4 or len(x) == 0:
            return super().forward(x)
        where = (list(self.padding), list(self.stride), list(self.dilation), self.groups)
        seen = (x.shape, self.weight.data_ptr(), None if self.weight.is_inference() else self.weight._version)
        if self.__dict__.get("_seen") != seen:  # the first call of this shape, or the weight was changed in place
            plain = self.weight.detach().to_mkldnn()
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight  # torch's stub lacks the size
            self.__dict__["_packed"] = reorder(plain, *where, list(x.shape))
            self.__dict__["_seen"] = seen
        made: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self.__dict__["_packed"], self.bias, *where, "none", [], ""
        )
        return made


class Compiled(nn.Module):
    """A network through torch.compile: weights frozen into the code on a CPU, CUDA graphs at fixed shapes on CUDA.

    If the first call cannot be compiled, it warns with the reason and runs the network as it is from then on.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.network = network
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
