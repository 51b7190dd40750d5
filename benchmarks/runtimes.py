"""Is another runtime worth having on a CPU? OpenVINO and ONNX Runtime against our own engine, fp32, bf16 and int8.

Their packages are no part of ddim's requirements. In an environment of their own:
    python3 -m venv out/runtimes
    out/runtimes/bin/pip install -c constraints.txt -e . openvino nncf onnx onnxruntime onnxscript
    out/runtimes/bin/python benchmarks/runtimes.py [--threads 1] [--model cifar10] [--repeats 5] [--only NAME ..]

--model cifar10 is Ho et al.'s 35.7M network with random weights, read as v-prediction so that its samples stay
bounded; anything else goes through ddim.load. int8 is calibrated on the fp32 network's own trajectories. Wall and
process CPU seconds of a call are taken in turns, the least counts. Errors are against plain fp32: relative RMS of a
call, averaged over two trajectories, and PSNR of whole samples of S = 20.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import save, unet
from torch import Tensor, nn

import ddim
from ddim import engine
from ddim.denoise import labels
from ddim.metrics.classifier import load_classifier
from ddim.nets import DiffusersNetwork

Call = Callable[..., Tensor]
Inputs = tuple[Tensor, ...]
INPUTS = ["x", "t", "label"]
NEEDS = ("openvino", "nncf", "onnx", "onnxruntime", "onnxscript")


class Case(NamedTuple):
    """What is run: the network, and how its output is read."""

    network: nn.Module
    schedule: ddim.Schedule
    prediction: str
    shape: tuple[int, ...]
    classes: int | None

    def sample(self, call: Call, n: int, seed: int, steps: int = 20) -> Tensor:
        """n images by DDIM; image i is of class i modulo K."""
        denoise = ddim.NetworkDenoiser(call, self.schedule, self.prediction)
        told = labels(None if self.classes is None else torch.arange(n) % self.classes)
        x_T, times = ddim.noise(range(seed, seed + n), self.shape), ddim.tau(self.schedule.T, steps)
        return ddim.sample(denoise, x_T, times, conditions=told)

    def states(self, n: int, seed: int) -> list[Inputs]:
        """What the network is fed along n trajectories, one image a state: every second time of each."""
        found: list[Inputs] = []
        ready = ours(self, "fp32")

        def call(*inputs: Tensor, **cond: Tensor) -> Tensor:
            found.append(tuple(v.clone() for v in (*inputs, *cond.values())))
            return ready(*inputs, **cond)

        self.sample(call, n, seed)
        return [tuple(v[i : i + 1] for v in inputs) for k, inputs in enumerate(found) for i in range(k % 2, n, 2)]


def case(name: str) -> Case:
    if name == "cifar10":
        return Case(DiffusersNetwork(unet()).eval(), ddim.Schedule.linear(1000), "v", (3, 32, 32), None)
    c = ddim.load(name).checkpoint
    return Case(c.network, c.schedule, c.prediction, c.shape, c.num_classes)


def ours(c: Case, precision: str, **how: Any) -> Call:
    ready, dtype = engine.prepared(c.network, precision, **how), engine.DTYPES[precision]

    @torch.no_grad()
    def call(x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        return ready(x.to(dtype), t, label).to(x.dtype)

    return call


def numpys(inputs: Iterable[Tensor]) -> list[Any]:
    return [v.numpy() for v in inputs]


def vino_model(c: Case, example: Inputs) -> Any:
    """The network as OpenVINO's, the batch size left open."""
    import openvino

    with torch.no_grad():
        model = openvino.convert_model(c.network, example_input=example)
    model.reshape({port: [-1, *v.shape[1:]] for port, v in zip(model.inputs, example, strict=True)})
    return model


def vino_int8(model: Any, calibration: list[Inputs]) -> Any:
    import nncf

    how = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(calibration)}  # activations asymmetric: SiLU
    return nncf.quantize(model.clone(), nncf.Dataset([numpys(inputs) for inputs in calibration]), **how)


def vino_call(model: Any, hint: str, threads: int) -> Call:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": hint}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    return lambda *inputs, **cond: torch.from_numpy(np.array(compiled(numpys((*inputs, *cond.values())))[0]))


def onnx_file(c: Case, example: Inputs, path: Path) -> Path:
    """The network as an ONNX file, the batch size left open."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    how: dict[str, Any] = {"dynamic_shapes": tuple({0: batch} for _ in example), "external_data": False}
    torch.onnx.export(c.network, example, path, dynamo=True, input_names=INPUTS[: len(example)], verbose=False, **how)
    return path


def onnx_int8(path: Path, calibration: list[Inputs]) -> Path:
    """Convolutions and matrix products in int8: weights by channel, activations by tensor from their extremes."""
    from onnxruntime import quantization as q

    inputs = iter([dict(zip(INPUTS, numpys(v), strict=False)) for v in calibration])

    class Reader(q.CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            return next(inputs, None)

    ready, out = path.with_suffix(".pre.onnx"), path.with_suffix(".int8.onnx")
    q.quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    kinds = {"activation_type": q.QuantType.QUInt8, "weight_type": q.QuantType.QInt8, "per_channel": True}
    q.quantize_static(str(ready), str(out), Reader(), op_types_to_quantize=["Conv", "Gemm", "MatMul"], **kinds)
    return out


def onnx_call(path: Path, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def call(*inputs: Tensor, **cond: Tensor) -> Tensor:
        fed = dict(zip(INPUTS, numpys((*inputs, *cond.values())), strict=False))
        return torch.from_numpy(session.run(None, fed)[0])

    return call


def builders(c: Case, calibration: list[Inputs], threads: int, folder: Path) -> dict[str, Callable[[], Call]]:
    """Names of what is compared and how to build each; every conversion is done once."""
    example = tuple(torch.cat([v, v]) for v in calibration[0])
    vino = functools.cache(lambda: vino_model(c, example))
    vino8 = functools.cache(lambda: vino_int8(vino(), calibration))
    onnx = functools.cache(lambda: onnx_file(c, example, folder / "net.onnx"))
    onnx8 = functools.cache(lambda: onnx_int8(onnx(), calibration))
    return {
        "plain fp32": lambda: ours(c, "fp32", packed=False),
        "ours fp32": lambda: ours(c, "fp32"),
        "ours bf16": lambda: ours(c, "bf16"),
        "openvino fp32": lambda: vino_call(vino(), "f32", threads),
        "openvino bf16": lambda: vino_call(vino(), "bf16", threads),
        "openvino int8": lambda: vino_call(vino8(), "f32", threads),
        "openvino int8+bf16": lambda: vino_call(vino8(), "bf16", threads),
        "onnxruntime fp32": lambda: onnx_call(onnx(), threads),
        "onnxruntime int8": lambda: onnx_call(onnx8(), threads),
    }


def seconds(calls: dict[str, Call], inputs: Inputs, repeats: int) -> dict[str, dict[str, float]]:
    """Least wall and CPU seconds of a call, the runs taken in turns."""
    found = {name: {"wall": math.inf, "cpu": math.inf} for name in calls}
    for i in range(repeats + 2):
        for name, call in calls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            call(*inputs)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if i >= 2:  # the first two of each only warm up
                found[name] = {"wall": min(found[name]["wall"], wall), "cpu": min(found[name]["cpu"], cpu)}
    return found


def quality(c: Case, calls: dict[str, Call], images: int) -> dict[str, dict[str, float]]:
    """Errors against plain fp32, and for scale what fp32 itself loses by fewer steps (and gains by 100)."""
    probes = c.states(2, seed=777)
    with torch.no_grad():
        right = [c.network(*inputs) for inputs in probes]
    base, found = c.sample(calls["plain fp32"], images, seed=0), {}
    for name, call in calls.items():
        errors = [float((call(*v) - r).norm() / r.norm()) for v, r in zip(probes, right, strict=True)]
        found[name] = {"relative rms": sum(errors) / len(errors), "largest of a call": max(errors)}
        found[name] |= compared(c, c.sample(call, images, seed=0), base)
    for steps in (10, 12, 15, 100):
        found[f"fp32, S = {steps}"] = compared(c, c.sample(calls["plain fp32"], images, 0, steps), base)
    for name, figures in found.items():
        print(f"{name:20s}", "  ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)
    return found


def compared(c: Case, x: Tensor, base: Tensor) -> dict[str, float]:
    """PSNR of images in [-1, 1], clamped as a file would; for digits, how many the classifier reads as asked."""
    errors = (((x.clamp(-1, 1) - base.clamp(-1, 1)) / 2) ** 2).double().flatten(1).mean(1).clamp(min=1e-30)
    found = {"psnr": -10 * math.log10(errors.mean()), "lowest psnr": -10 * math.log10(errors.max())}
    if c.shape == (1, 28, 28) and c.classes == 10:
        with torch.no_grad():
            read = load_classifier().logits(x).argmax(1)
        found["accuracy"] = float((read == torch.arange(len(x)) % 10).float().mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="cifar10", help="cifar10 (random weights), or what ddim.load takes")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], choices=(1, 2, 4, 8, 16, 32))
    parser.add_argument("--images", type=int, default=8, help="images of the quality figures; 0 leaves them out")
    parser.add_argument("--only", nargs="+", help="only these beside plain fp32; no result is saved")
    options = parser.parse_args()
    missing = " ".join(name for name in NEEDS if importlib.util.find_spec(name) is None)
    if missing:
        parser.exit(2, f"runtimes.py needs more packages: pip install {missing}\n")
    torch.set_num_threads(options.threads)
    c = case(options.model)
    calibration = c.states(6, seed=1000)  # other seeds than those of the figures
    with tempfile.TemporaryDirectory() as folder:
        made = builders(c, calibration, options.threads, Path(folder))
        names = [n for n in made if n == "plain fp32" or not options.only or n in options.only]
        calls = {name: made[name]() for name in names}
        result: dict[str, Any] = {"model": options.model, "calibration states": len(calibration)}
        for batch in options.batches:
            inputs = tuple(torch.cat(list(v[:batch])) for v in zip(*calibration, strict=True))
            result[f"batch {batch}"] = seconds(calls, inputs, options.repeats)
            for name, took in result[f"batch {batch}"].items():
                print(f"batch {batch}  {name:20s} wall {took['wall']:.4f}  cpu {took['cpu']:.4f}", flush=True)
        if options.images:
            result["quality"] = quality(c, calls, options.images)
    if not options.only:
        save(f"runtimes-{Path(options.model).name}", result)


if __name__ == "__main__":
    main()
