"""Training speed: `ddim train`'s loop against diffusers' train_unconditional recipe and lucidrains' Trainer.

The same network, start, batch and folder of PNGs (synthetic, or --data); images/s over blocks of steps taken in
turns. Curves of the loss are curves.py's. `python benchmarks/training.py [--quick] [--presets mnist,cifar10-small]`
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import alternate, counted, options, parser, ratios, save, spread
from pictures import from_data, synthetic, write
from trainers import DiffusersRecipe, Lucidrains, Ours, Task, Trainer

from ddim.engine import has_fast_bf16

SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10-small": (3, 32, 32), "cifar10": (3, 32, 32)}
BATCHES = {"digits": 64, "mnist": 64, "cifar10-small": 32, "cifar10": 16}
BASES = ("diffusers recipe fp32", "lucidrains fp32", "diffusers recipe bf16")


def trainers(task: Task) -> dict[str, Trainer]:
    made: dict[str, Trainer] = {"diffusers recipe fp32": DiffusersRecipe(task), "lucidrains fp32": Lucidrains(task)}
    made |= {"ddim fp32": Ours(task, "fp32")}
    if has_fast_bf16(torch.device("cpu")):  # the recipe with its --mixed_precision bf16, too: like for like
        made |= {"diffusers recipe bf16": DiffusersRecipe(task, "bf16"), "ddim bf16": Ours(task, "bf16")}
    return made


def inside(trainer: Trainer) -> str:
    """The type of a hidden activation of one step: what precision really ran."""
    found: list[torch.dtype] = []
    block: Any = trainer.network.down_blocks[0]
    handle = block.resnets[0].conv1.register_forward_hook(lambda _module, _inputs, out: found.append(out.dtype))
    with counted(trainer.network) as sizes:
        trainer.steps(1)
    handle.remove()
    return f"{str(found[0]).removeprefix('torch.')}, {sum(sizes)} images in {len(sizes)} calls"


def measure(preset: str, data: str | None, block: int, repeats: int, n: int, quick: bool) -> dict[str, Any]:
    shape, batch = SHAPES[preset], 16 if quick else BATCHES[preset]
    with tempfile.TemporaryDirectory() as temporary:
        pixels = from_data(data, n, shape) if data else synthetic(n, shape)
        task = Task(write(pixels, Path(temporary) / "images"), preset, shape, batch)
        made = trainers(task)
        ran = {name: inside(trainer) for name, trainer in made.items()}  # the first step of each, too: warm
        print(f"{preset}, batch {batch}: {ran}", flush=True)
        seconds = alternate({name: (lambda t=t: t.steps(block)) for name, t in made.items()}, repeats, warm=0)
    mine = [k for k in seconds if k.startswith("ddim")]
    row = {
        "preset": preset,
        "parameters": sum(p.numel() for p in made["ddim fp32"].network.parameters()),
        "batch": batch,
        "images": data or f"{n} synthetic, seed 0",
        "steps_a_block": block,
        "one_step": ran,
        "images_per_second": {k: spread([batch * block / s for s in v]) for k, v in seconds.items()},
        "speedup": {f"{k} / {b}": ratios(seconds[b], seconds[k]) for b in BASES if b in seconds for k in mine},
    }
    for name, r in row["speedup"].items():
        print(f"  {name}: {r['median']:.2f}x ({r['min']:.2f} to {r['max']:.2f})", flush=True)
    fastest = max(statistics.median(batch * block / s for s in seconds[k]) for k in mine)
    print(f"  ddim at best {fastest:.1f} images/s", flush=True)
    return row


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--presets", default="", help=f"of {', '.join(SHAPES)}; cifar10 is the 35.7M network")
    made.add_argument("--data", help="a folder of images or a Parquet file, instead of synthetic images")
    args = options(made)
    presets = args.presets or ("digits" if args.quick else "mnist,cifar10-small")
    block, repeats, n = (1, 2, 128) if args.quick else (6, 5, 512)
    rows = [measure(p, args.data, block, repeats, n, args.quick) for p in presets.split(",")]
    save("training", {"seed": 0, "rows": rows}, args.quick)


if __name__ == "__main__":
    main()
