"""`ddim bench MODEL`: what each switch of the engine buys for this model on this machine."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

import tyro

import ddim
from ddim.cli import options, show
from ddim.refused import Refused

if TYPE_CHECKING:
    from torch import nn

    from ddim.jobs import Bench, Took

HEAD = ("switches", "images/s", "speed-up", "ms a call", "outside network", "GFLOP/s", "of matmul", "MiB a call")


@options.command
class Command(options.OnDevice, options.Batched, options.OfModel):
    """Sample with each set of switches in turn and show what it buys: speed, time outside the network, memory."""

    model: tyro.conf.Positional[str] = options.DEFAULT
    batch_size: int = 8
    steps: int = 5
    """Network calls a sample; images/s are for this S."""
    repeats: int = 3
    """Samples per set of switches, taken in turns; medians are shown."""
    compile: bool = False
    """Also measure torch.compile; it takes minutes on a CPU."""
    onnx: bool = False
    """Also measure the model exported to ONNX Runtime, in fp32 and int8: would ddim export --to onnx pay?"""

    def run(self) -> None:
        self.refuse_no_batch()
        for name in ("steps", "repeats"):
            if getattr(self, name) < 1:
                raise Refused(f"--{name} must be at least 1, got {getattr(self, name)}")
        model = self.load()
        bench = ddim.jobs.Bench(model, self.batch_size, model.tau(self.steps if model.student is None else None))
        if self.onnx and model.device.type != "cpu":
            raise Refused(f"--onnx measures ONNX Runtime on the CPU, not on {model.device.type}: give --device cpu")
        kinds = ddim.jobs.switch_sets(model.device, self.compile)
        ready = bench.ready(kinds) | (ddim.jobs.exported_networks(model) if self.onnx else {})
        rows: dict[str, list[Took]] = {name: [] for name in ready}
        with show.progress((self.repeats + 1) * len(ready), "runs") as bar:
            for i in range(self.repeats + 1):  # the first of each only warms up
                for j, (name, network) in enumerate(ready.items()):
                    rows[name].append(bench.time(network))
                    bar(i * len(ready) + j + 1)
        self._print(model, bench, kinds, ready, {name: times[1:] for name, times in rows.items()})

    def _print(
        self, model: ddim.Model, bench: Bench, kinds: dict[str, dict[str, Any]], ready: dict[str, nn.Module],
        rows: dict[str, list[Took]],
    ) -> None:  # fmt: skip
        flops, peak = bench.flops(), ddim.jobs.peaks({str(k["precision"]) for k in kinds.values()}, model.device)
        totals = {name: statistics.median(t.total for t in times) for name, times in rows.items()}
        insides = {name: statistics.median(t.inside for t in times) for name, times in rows.items()}
        lines = []
        for name, total in totals.items():
            inside, best = insides[name], peak.get(str(kinds.get(name, {}).get("precision")))
            speed = flops * bench.calls / inside
            lines.append([
                name, f"{self.batch_size / total:.3g}", f"{next(iter(totals.values())) / total:.2f}x",
                f"{1e3 * inside / bench.calls:.1f}", f"{1 - inside / total:.1%}", f"{speed / 1e9:.0f}",
                f"{speed / best:.0%}" if best else "-", bench.memory(ready[name]),
            ])  # fmt: skip
        size = f"{bench.parameters / 1e6:.1f}M parameters, {flops / self.batch_size / 1e9:.2f} GFLOP/image"
        print(f"{self.model}: {size}")
        print(f"{bench.machine()}, batch {self.batch_size}, {bench.calls} network calls\n")
        print(show.table(HEAD, lines))
        decoding = bench.decoding()
        if decoding is not None:
            print(f"\nof latents; to decode one takes {1e3 * decoding:.1f} ms more")
        print("\nmatrix product: " + ", ".join(f"{p} {v / 1e9:.0f} GFLOP/s" for p, v in sorted(peak.items())))
        fastest = min(totals, key=lambda name: totals[name])
        auto = ddim.engine.pick_precision("auto", model.device)
        print(f"fastest here: {fastest}; --precision auto is {auto}")
        fits = ddim.engine.fitting_batch(lambda n: bench.call(next(iter(ready.values())), n), model.device)
        print(f"batch size that fits the memory that is free: {fits}")
        decision = ddim.engine.compile_decision(
            "auto", calls=1000 * self.steps, seconds_a_call=insides[fastest] / bench.calls, device=model.device
        )
        print(decision.why)
