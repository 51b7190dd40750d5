"""One CUDA card, written for an H200: sampling against DDIMPipeline, training against diffusers' recipe, FLOP/s.

NEVER RUN on CUDA: no card was lent. Its code has only been walked on a CPU (`--device cpu --quick`, a tiny network,
nothing compiled), which says that it runs and nothing of speed. Without CUDA it says so and exits with 2.

Sampling, the 35.7M network, S = 20, batch 1, 64, 256: DDIMPipeline in fp32 as documented; at batch 1 also as
diffusers' performance guide tunes it (channels_last, torch.compile, and fp16: DDIMPipeline 0.42 cannot turn bf16
images into pictures); ours in bf16, channels_last, without and with CUDA graphs (`engine.prepared(compiled=True)`).
Training, batch 128: diffusers' recipe in its default fp32 and in bf16, ours in fp32 and bf16. FLOP/s are those of the
network's forward pass (three times that in training), beside what an 8192^3 bf16 matrix product reaches in the same
run. `python benchmarks/gpu.py [--quick]`
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import NETWORK, alternate, options, parser, ratios, save, spread, unet
from pictures import synthetic, write
from sampling import nodes, pipeline, to_pictures
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from trainers import DiffusersRecipe, Ours, Task, Trainer

import ddim
from ddim import engine
from ddim.denoise import Clip, NetworkDenoiser
from ddim.nets import DiffusersNetwork

MISSING = "gpu.py: skipped, this machine has no CUDA device (it was written for an H200 and has never been run)"
DRY = "--device cpu walks a tiny network to show that the script runs; its numbers say nothing"


def matrix_product(device: str, size: int) -> float:
    """FLOP/s of a bf16 product of two square matrices, the best of 20."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = alternate({"bf16 matrix product": lambda: a @ b}, 3 if device == "cpu" else 20, warm=3)
    return 2 * size**3 / min(seconds["bf16 matrix product"])


def forward_flops(net: nn.Module, x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, torch.zeros(len(x), dtype=torch.int64, device=x.device))
    return counter.get_total_flops()


def diffusers_run(net: nn.Module, batch: int, steps: int, compiled: bool = False) -> Callable[[], Any]:
    pipe = pipeline(net)
    if compiled:
        pipe.unet = torch.compile(pipe.unet, mode="max-autotune", fullgraph=True)
    return lambda: (
        pipe(
            batch_size=batch,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(batch),
            output_type="pil",
        ).images
    )


def our_run(network: nn.Module, batch: int, times: tuple[int, ...], x_T: Tensor) -> Callable[[], Any]:
    denoise = Clip(NetworkDenoiser(network, ddim.Schedule.linear(1000)))
    return lambda: to_pictures(ddim.sample(denoise, x_T, times))


def sampling(preset: str, shape: tuple[int, int, int], device: str, batch: int, repeats: int) -> dict[str, Any]:
    steps, net = 20 if device != "cpu" else 2, unet(preset, shape).to(device)
    raw = DiffusersNetwork(net).eval()
    x_T = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch)).to(device)
    times = nodes(pipeline(net), steps)
    runs = {
        "DDIMPipeline fp32": diffusers_run(net, batch, steps),
        "ddim fp32": our_run(engine.prepared(raw, "fp32"), batch, times, x_T),
        "ddim bf16": our_run(engine.prepared(raw, "bf16"), batch, times, x_T),
    }
    if device != "cpu":
        runs["ddim bf16 compiled"] = our_run(engine.prepared(raw, "bf16", compiled=True), batch, times, x_T)
    if batch == 1:
        half = unet(preset, shape).to(device, torch.float16).to(memory_format=torch.channels_last)
        runs["DDIMPipeline tuned fp16"] = diffusers_run(half, batch, steps, compiled=device != "cpu")
    begun = time.perf_counter()
    for run in runs.values():
        run()
    print(f"batch {batch}: first runs, compiling included, {time.perf_counter() - begun:.0f} s", flush=True)
    seconds = alternate(runs, repeats, warm=2)
    bases, mine = ([k for k in runs if k.startswith(word)] for word in ("DDIMPipeline", "ddim"))
    flops = forward_flops(net, x_T) * steps
    return {
        "batch": batch,
        "steps": steps,
        "images_per_second": {k: spread([batch / s for s in v]) for k, v in seconds.items()},
        "flops_per_second": {k: spread([flops / s for s in v]) for k, v in seconds.items()},
        "speedup": {f"{k} / {b}": ratios(seconds[b], seconds[k]) for b in bases for k in mine},
    }


def training(preset: str, shape: tuple[int, int, int], device: str, batch: int, repeats: int) -> dict[str, Any]:
    block = 1 if device == "cpu" else 10
    with tempfile.TemporaryDirectory() as temporary:
        folder = write(synthetic(max(128, 4 * batch), shape), Path(temporary) / "images")
        task = Task(folder, preset, shape, batch, device=device)
        made: dict[str, Trainer] = {
            "diffusers recipe fp32": DiffusersRecipe(task),
            "diffusers recipe bf16": DiffusersRecipe(task, "bf16"),
            "ddim fp32": Ours(task, "fp32"),
            "ddim bf16": Ours(task, "bf16"),
        }
        seconds = alternate({k: (lambda t=t: t.steps(block)) for k, t in made.items()}, repeats)
    x = torch.zeros(batch, *shape, device=device)
    flops = 3 * forward_flops(unet(preset, shape).to(device), x) * block
    bases, mine = ([k for k in made if k.startswith(word)] for word in ("diffusers", "ddim"))
    return {
        "preset": preset,
        "batch": batch,
        "images_per_second": {k: spread([batch * block / s for s in v]) for k, v in seconds.items()},
        "flops_per_second": {k: spread([flops / s for s in v]) for k, v in seconds.items()},
        "speedup": {f"{k} / {b}": ratios(seconds[b], seconds[k]) for b in bases for k in mine},
    }


def show(title: str, row: dict[str, Any], most: float) -> None:
    print(f"{title}, batch {row['batch']}")
    for name, speed in row["images_per_second"].items():
        share = row["flops_per_second"][name]["median"] / most
        print(f"  {name}: {speed['median']:.1f} images/s, {100 * share:.1f} % of the matrix product's FLOP/s")
    for name, r in row["speedup"].items():
        print(f"  {name}: {r['median']:.2f}x ({r['min']:.2f} to {r['max']:.2f})", flush=True)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help=DRY)
    args = options(made)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(MISSING)
        sys.exit(2)
    dry = args.device == "cpu"
    preset, shape = ("digits", (1, 8, 8)) if dry else ("cifar10", (3, 32, 32))
    batches = (1, 2) if dry else (1, 64) if args.quick else (1, 64, 256)
    repeats = 1 if dry else 3 if args.quick else 10
    most = matrix_product(args.device, 256 if dry else 8192)
    print(f"bf16 matrix product: {most / 1e12:.2f} TFLOP/s", flush=True)
    rows = []
    for batch in batches:
        rows.append(sampling(preset, shape, args.device, batch, repeats))
        show("sampling", rows[-1], most)
    train = training(preset, shape, args.device, 4 if dry else 128, repeats)
    show("training", train, most)
    result = {"network": DRY if dry else NETWORK, "matrix_product_flops": most, "rows": rows, "training": [train]}
    save("gpu", result, args.quick or dry)


if __name__ == "__main__":
    main()
