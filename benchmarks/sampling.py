"""Sampling against diffusers' DDIMPipeline: the 35.7M CIFAR-10 network, random weights, S = 20, the same x_T.

The pipeline is used as its documentation does, `pipe(batch_size=B, num_inference_steps=S).images`, its bar off.
It draws its own x_T from a generator; ours starts from the same numbers. Times: its "leading" nodes, walked by
both. `python benchmarks/sampling.py [--quick]`
"""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from common import NETWORK, alternate, options, parser, ratios, save, spread, unet
from torch import Tensor, nn

import ddim
from ddim import engine
from ddim.denoise import Clip, NetworkDenoiser
from ddim.nets import DiffusersNetwork


class Timed:
    """Adds up the seconds spent inside a network's calls."""

    def __init__(self, network: nn.Module) -> None:
        self.seconds = 0.0
        network.register_forward_pre_hook(self._begin)
        network.register_forward_hook(self._end)

    def _begin(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._begun = time.perf_counter()

    def _end(self, *_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds += time.perf_counter() - self._begun


def pipeline(net: nn.Module) -> Any:
    from diffusers import DDIMPipeline, DDIMScheduler

    pipe = DDIMPipeline(unet=net, scheduler=DDIMScheduler(num_train_timesteps=1000))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def nodes(pipe: Any, steps: int) -> tuple[int, ...]:
    """The pipeline's own nodes as our times (its label t is our t + 1), then the clean image."""
    pipe.scheduler.set_timesteps(steps)
    return (*(int(t) + 1 for t in pipe.scheduler.timesteps), 0)


def ours(network: nn.Module, x_T: Tensor, times: tuple[int, ...]) -> Tensor:
    return ddim.sample(Clip(NetworkDenoiser(network, ddim.Schedule.linear(1000))), x_T, times)


def in_range(x: Tensor) -> Any:
    return (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()


def psnr(a: Any, b: Any) -> float:
    """Decibels over images in [0, 1]."""
    mse = float(np.mean((a.astype(np.float64) - b) ** 2))
    return math.inf if mse == 0 else -10 * math.log10(mse)


def outside(network: nn.Module, x_T: Tensor, times: tuple[int, ...]) -> float:
    """Share of a whole sample's time that is not spent inside the network."""
    timed = Timed(network)
    ours(network, x_T, times)
    timed.seconds, begun = 0.0, time.perf_counter()
    ours(network, x_T, times)
    return 1 - timed.seconds / (time.perf_counter() - begun)


def compare(net: nn.Module, batch: int, steps: int, repeats: int) -> dict[str, Any]:
    pipe = pipeline(net)
    seed = torch.Generator().manual_seed(batch)
    x_T = torch.randn(batch, 3, 32, 32, generator=seed)  # what the pipeline draws from this seed
    times = nodes(pipe, steps)
    raw = DiffusersNetwork(net).eval()
    auto = engine.pick_precision("auto", torch.device("cpu"))
    fp32, fast = engine.prepared(raw, "fp32"), engine.prepared(raw, auto)
    plain = engine.prepared(raw, "fp32", packed=False)

    def theirs(output_type: str = "pil", **options: Any) -> Any:
        return pipe(
            batch_size=batch,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(batch),
            output_type=output_type,
            **options,
        ).images

    # By default it clips x0 and keeps the old eps; for the comparison of values it is told to re-derive eps, as we do.
    reference = theirs("np", use_clipped_model_output=True)
    mine, unpacked, quick = (in_range(ours(network, x_T, times)) for network in (fp32, plain, fast))
    networks = {"ddim fp32": fp32, "ddim fp32 unpacked": plain, f"ddim auto ({auto})": fast}
    runs: dict[str, Any] = {"DDIMPipeline": theirs}
    runs |= {name: lambda network=network: to_pictures(ours(network, x_T, times)) for name, network in networks.items()}
    seconds = alternate(runs, repeats, warm=0)
    return {
        "batch": batch,
        "steps": steps,
        "x_T": f"torch.Generator().manual_seed({batch})",
        "images_per_second": {k: spread([batch / s for s in v]) for k, v in seconds.items()},
        "speedup": {f"{k} / DDIMPipeline": ratios(seconds["DDIMPipeline"], seconds[k]) for k in networks},
        "fp32_max_difference": float(np.abs(reference * 2 - mine * 2).max()),  # in the data's range -1..1
        "fp32_unpacked_max_difference": float(np.abs(reference * 2 - unpacked * 2).max()),
        "auto_psnr_db": psnr(mine, quick),
        "outside_network": {"fp32": outside(fp32, x_T, times), auto: outside(fast, x_T, times)},
    }


def to_pictures(x: Tensor) -> Any:
    """What the pipeline also does at the end: PIL images."""
    from diffusers import DDIMPipeline

    return DDIMPipeline.numpy_to_pil(in_range(x))


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--repeats", type=int, default=5)
    args = options(made)
    net = unet()
    rows = []
    for batch in (1, 2) if args.quick else (1, 8):
        row = compare(net, batch, 2 if args.quick else 20, 1 if args.quick else args.repeats)
        rows.append(row)
        print(
            f"batch {batch}: "
            + ", ".join(f"{k} {v['median']:.2f}x ({v['min']:.2f} to {v['max']:.2f})" for k, v in row["speedup"].items())
            + f"; fp32 within {row['fp32_max_difference']:.2g}, auto PSNR {row['auto_psnr_db']:.1f} dB, "
            f"outside the network {row['outside_network']}",
            flush=True,
        )
    save("sampling", {"network": NETWORK, "rows": rows}, args.quick)


if __name__ == "__main__":
    main()
