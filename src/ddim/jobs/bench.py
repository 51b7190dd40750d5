"""What the engine's switches buy: one model, batch and tau measured under each set of them, and in ONNX Runtime."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddim import engine
from ddim.denoise import bound, labels
from ddim.engine import call_bytes
from ddim.jobs.export import PRECISIONS, export_onnx
from ddim.model import Model, load
from ddim.process import noise
from ddim.solve import sample


def switch_sets(device: torch.device, compiled: bool) -> dict[str, dict[str, Any]]:
    """Sets of switches, the first being the network as it was loaded; each adds one to a set above it."""
    found: dict[str, dict[str, Any]] = {"fp32": {"precision": "fp32", "packed": False}}
    half = "bf16" if engine.has_fast_bf16(device) else None
    for precision in filter(None, ("fp32", half)):
        packs = engine.why_not_packed(device, precision) is None
        if precision != "fp32":
            found[precision] = {"precision": precision, "packed": False, "channels_last": False}
            found[f"{precision} nhwc"] = {"precision": precision, "packed": False, "channels_last": True}
        last = precision != "fp32"
        if packs:
            found[f"{precision}{' nhwc' * last} packed"] = {"precision": precision, "packed": True}
        if compiled:
            found[f"{precision}{' nhwc' * last} compiled"] = {"precision": precision, "compiled": True}
    return found


def exported_networks(model: Model) -> dict[str, nn.Module]:
    """The model in ONNX Runtime, by name; the files are gone afterwards."""
    found: dict[str, nn.Module] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            path = Path(folder) / precision
            export_onnx(path, model.checkpoint, precision=precision)
            found[f"onnx {precision}"] = load(path).checkpoint.network
    return found


@dataclass(frozen=True)
class Took:
    """Seconds of a sample in all, and inside the network."""

    total: float
    inside: float


class Bench:
    """One model, batch and tau; every set of switches meets the same latents."""

    def __init__(self, model: Model, batch: int, times: tuple[Any, ...]) -> None:
        self.model, self.batch, self.times = model, batch, times
        self.calls = len(times) - 1
        self.network = model.checkpoint.network
        self.parameters = sum(p.numel() for p in self.network.parameters())
        self.label = model.labels(0, batch) if model.num_classes else None
        self.x_T = model.process.start(times[0]) * noise(range(batch), model.shape).to(model.device)

    def time(self, network: nn.Module) -> Took:
        """One sample: seconds in all, and inside the network."""
        inside, begun = 0.0, 0.0

        def before(*_: Any) -> None:
            nonlocal begun
            begun = self._now()

        def after(*_: Any) -> None:
            nonlocal inside
            inside += self._now() - begun

        hooks = (network.register_forward_pre_hook(before), network.register_forward_hook(after))
        try:
            start = self._now()
            sample(self._denoiser(network), self.x_T, self.times)
            return Took(self._now() - start, inside)
        finally:
            for hook in hooks:
                hook.remove()

    def ready(self, kinds: Mapping[str, Mapping[str, Any]]) -> dict[str, nn.Module]:
        """The network under each set of switches."""
        return {name: engine.prepared(self.network, **how) for name, how in kinds.items()}

    def flops(self) -> float:
        """Floating-point operations of one call on the batch: convolutions, matrix products, attention."""
        network = engine.prepared(self.network, "fp32", packed=False)  # the counter does not know packed convolutions
        with FlopCounterMode(display=False) as counter:
            self.call(network, 1)
        return float(counter.get_total_flops()) * self.batch

    def memory(self, network: nn.Module) -> str:
        """MiB a call takes, or "-" where the counter of live tensors sees nothing."""
        if isinstance(network, (engine.Compiled, engine.Exported)):
            return "-"
        return f"{call_bytes(lambda n: self.call(network, n), self.batch, self.model.device) / 2**20:.0f}"

    @torch.no_grad()
    def decoding(self) -> float | None:
        """Seconds a picture that the autoencoder takes after the walk; None where the walk is in pixels."""
        if self.model.space.lossless:
            return None
        self.model.space.decode(self.x_T)  # warms up
        begun = self._now()
        self.model.space.decode(self.x_T)
        return (self._now() - begun) / self.batch

    def machine(self) -> str:
        """Where it runs."""
        return f"{self.model.device}, {torch.get_num_threads()} threads"

    @torch.no_grad()
    def call(self, network: nn.Module, rows: int) -> None:
        """One network call on that many images."""
        x = self.x_T[:1].expand(rows, *self.x_T.shape[1:]).contiguous()
        label = None if self.label is None else self.label[:1].expand(rows)
        self._denoiser(network, bind=False)(x, self.times[0], labels(label))

    def _denoiser(self, network: nn.Module, bind: bool = True) -> Any:
        denoise = self.model.checkpoint.denoiser(network)
        return bound(denoise, labels(self.label)) if bind else denoise

    def _now(self) -> float:
        if self.model.device.type != "cpu":
            torch.accelerator.synchronize(self.model.device)
        return time.perf_counter()


def peaks(precisions: Iterable[str], device: torch.device) -> dict[str, float]:
    """Operations a second of a matrix product, for each number format."""
    return {p: matmul_flops(engine.DTYPES[p], device) for p in precisions}


def matmul_flops(dtype: torch.dtype, device: torch.device, size: int | None = None, repeats: int = 5) -> float:
    """Operations a second of the best of a few square matrix products: what this machine does at its best."""
    size = size or (1024 if device.type == "cpu" else 8192)
    a = torch.full((size, size), 0.5, dtype=dtype, device=device)
    return max(2 * size**3 / _seconds(lambda: a @ a, device) for _ in range(repeats + 1))


def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    begun = time.perf_counter()
    run()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - begun
