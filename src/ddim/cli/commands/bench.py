"""`ddim bench MODEL`: what each switch of the engine buys for this model on this machine."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ddim import engine
from ddim.cli.show import progress, table
from ddim.denoise import bound, labels
from ddim.engine import Exported, call_bytes, fitting_batch
from ddim.jobs import PRECISIONS, export_onnx
from ddim.model import DEFAULT, Model, load
from ddim.process import noise
from ddim.refused import Refused
from ddim.solve import sample

HEAD = ("switches", "images/s", "speed-up", "ms a call", "outside network", "GFLOP/s", "of matmul", "MiB a call")


@dataclass(frozen=True)
class Command:
    """Sample with each set of switches in turn and show what it buys: speed, time outside the network, memory."""

    model: tyro.conf.Positional[str] = DEFAULT
    """A bundled name, a model or run folder, a checkpoint file or a hub id."""
    batch_size: int = 8
    """Images a network call."""
    steps: int = 5
    """Network calls a sample; images/s are for this S."""
    repeats: int = 3
    """Samples per set of switches, taken in turns; medians are shown."""
    compile: bool = False
    """Also measure torch.compile; it takes minutes on a CPU."""
    onnx: bool = False
    """Also measure the model exported to ONNX Runtime, in fp32 and int8: would ddim export --to onnx pay?"""
    device: str = "auto"
    """cpu, cuda, ... or auto."""

    def run(self) -> None:
        for name in ("batch_size", "steps", "repeats"):
            if getattr(self, name) < 1:
                raise Refused(f"--{name.replace('_', '-')} must be at least 1, got {getattr(self, name)}")
        model = load(self.model, device=self.device)
        bench = _Bench(model, self.batch_size, model.tau(self.steps))
        if self.onnx and model.device.type != "cpu":
            raise Refused(f"--onnx measures ONNX Runtime on the CPU, not on {model.device.type}: give --device cpu")
        kinds = switches(model.device, self.compile)
        ready = {name: engine.prepared(model.checkpoint.network, **how) for name, how in kinds.items()}
        ready |= exported(model) if self.onnx else {}
        rows: dict[str, list[_Time]] = {name: [] for name in ready}
        with progress((self.repeats + 1) * len(ready), "runs") as bar:
            for i in range(self.repeats + 1):  # the first of each only warms up
                for j, (name, network) in enumerate(ready.items()):
                    rows[name].append(bench.time(network))
                    bar(i * len(ready) + j + 1)
        self._print(model, bench, kinds, ready, {name: times[1:] for name, times in rows.items()})

    def _print(
        self,
        model: Model,
        bench: _Bench,
        kinds: dict[str, dict[str, Any]],
        ready: dict[str, nn.Module],
        rows: dict[str, list[_Time]],
    ) -> None:
        flops = bench.flops(model.checkpoint.network)
        peak = {p: matmul_flops(engine.DTYPES[p], model.device) for p in {str(k["precision"]) for k in kinds.values()}}
        base, lines = statistics.median(t.total for t in next(iter(rows.values()))), []
        for name, times in rows.items():
            total, inside = statistics.median(t.total for t in times), statistics.median(t.inside for t in times)
            speed = flops * bench.calls / inside
            unseen = isinstance(ready[name], (engine.Compiled, Exported))  # by the counter of live tensors
            memory = "-" if unseen else f"{bench.memory(ready[name]) / 2**20:.0f}"
            best = peak.get(str(kinds.get(name, {}).get("precision")))
            lines.append([
                name, f"{self.batch_size / total:.3g}", f"{base / total:.2f}x", f"{1e3 * inside / bench.calls:.1f}",
                f"{1 - inside / total:.1%}", f"{speed / 1e9:.0f}", f"{speed / best:.0%}" if best else "-", memory,
            ])  # fmt: skip
        print(
            f"{self.model}: {bench.parameters / 1e6:.1f}M parameters, {flops / self.batch_size / 1e9:.2f} GFLOP/image"
        )
        print(
            f"{model.device}, {torch.get_num_threads()} threads, batch {self.batch_size}, {bench.calls} network calls\n"
        )
        print(table(HEAD, lines))
        print("\nmatrix product: " + ", ".join(f"{p} {v / 1e9:.0f} GFLOP/s" for p, v in sorted(peak.items())))
        fastest = min(rows, key=lambda name: statistics.median(t.total for t in rows[name]))
        auto = engine.pick_precision("auto", model.device)
        print(f"fastest here: {fastest}; --precision auto is {auto}")
        fits = fitting_batch(lambda n: bench.call(next(iter(ready.values())), n), model.device)
        print(f"batch size that fits the memory that is free: {fits}")
        seconds = statistics.median(t.inside for t in rows[fastest]) / bench.calls
        print(engine.compile_decision("auto", calls=1000 * self.steps, seconds_a_call=seconds, device=model.device).why)


def switches(device: torch.device, compiled: bool) -> dict[str, dict[str, Any]]:
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


def exported(model: Model) -> dict[str, nn.Module]:
    """The model in ONNX Runtime, by name; the files are gone afterwards."""
    found: dict[str, nn.Module] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            path = Path(folder) / precision
            export_onnx(path, model.checkpoint, precision=precision)
            found[f"onnx {precision}"] = load(path).checkpoint.network
    return found


@dataclass(frozen=True)
class _Time:
    total: float
    inside: float


class _Bench:
    """One model, batch and tau; every set of switches meets the same latents."""

    def __init__(self, model: Model, batch: int, times: tuple[int, ...]) -> None:
        self.model, self.batch, self.times = model, batch, times
        self.calls = len(times) - 1
        self.parameters = sum(p.numel() for p in model.checkpoint.network.parameters())
        self.label = model.labels(0, batch) if model.num_classes else None
        self.x_T = noise(range(batch), model.shape).to(model.device)

    def time(self, network: nn.Module) -> _Time:
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
            return _Time(self._now() - start, inside)
        finally:
            for hook in hooks:
                hook.remove()

    def flops(self, network: nn.Module) -> float:
        """Floating-point operations of one call on the batch: convolutions, matrix products, attention."""
        network = engine.prepared(network, "fp32", packed=False)  # the counter does not know packed convolutions
        with FlopCounterMode(display=False) as counter:
            self.call(network, 1)
        return float(counter.get_total_flops()) * self.batch

    def memory(self, network: nn.Module) -> int:
        return call_bytes(lambda n: self.call(network, n), self.batch, self.model.device)

    @torch.no_grad()
    def call(self, network: nn.Module, rows: int) -> None:
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
