"""Each peer's own DDIM around one network: lucidrains, azula and k-diffusion against `ddim.sample`.

The 35.7M CIFAR-10 network with random weights, S = 20, the same x_T, and the same nodes 1000, 950, ..., 50, 0: those
lucidrains and azula choose themselves; k-diffusion is told them as sigmas. Every peer is used through the smallest
adapter its documentation describes, in its own default precision (fp32). Bars are off. The network calls of each are
counted, and its images compared with ours. bf16 differs much here: at t = 1000 x0 = (x_t - noise eps)/0.006, and an
untrained network makes nothing of that; sampling.py, whose first t is 951, gives the PSNR.
`python benchmarks/peers.py [--quick]`; `--check` only imports the peers.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from typing import Any

import torch
from common import NETWORK, alternate, counted, options, parser, ratios, save, spread, unet
from torch import Tensor, nn

import ddim
from ddim import engine
from ddim.denoise import Clip, NetworkDenoiser
from ddim.nets import DiffusersNetwork

SHAPE, T = (3, 32, 32), 1000
Run = Callable[[], Tensor]


class ForLucidrains(nn.Module):
    """A network with the attributes GaussianDiffusion reads."""

    self_condition = False

    def __init__(self, network: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.network, self.channels, self.out_dim = network, channels, channels

    def forward(self, x: Tensor, t: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
        return self.network(x, t)


def lucidrains(network: nn.Module, x_T: Tensor, steps: int) -> Run:
    from denoising_diffusion_pytorch import GaussianDiffusion

    diffusion = GaussianDiffusion(
        ForLucidrains(network), image_size=SHAPE[1], timesteps=T, sampling_timesteps=steps,
        objective="pred_noise", beta_schedule="linear",
    )  # fmt: skip

    def run() -> Tensor:
        torch.manual_seed(len(x_T))  # it draws x_T itself, from the global generator: the numbers of `start`
        return diffusion.sample(batch_size=len(x_T)) * 2 - 1

    return run


def azula(network: nn.Module, x_T: Tensor, steps: int) -> Run:
    from azula.noise import Schedule
    from azula.plugins.adm import AblatedDenoiser
    from azula.sample import DDIMSampler

    class Linear(Schedule):
        """Ho et al.'s schedule at the times k/1000."""

        scales = torch.stack([(a := ddim.Schedule.linear(T).alpha_bar).sqrt(), (1 - a).sqrt()]).float()

        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            signal, noise = self.scales[:, (t * T).round().long()]
            return signal, noise

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
            return self.network(x, t, y)

    denoiser = AblatedDenoiser(Backbone(), schedule=Linear(), clip_mean=True, learn_var=False).eval()
    # It finds the network's label by searching the noise in a float32 table, and rounding lands on the next label at
    # 3 of 20 nodes; half the table's finest spacing keeps it on the right one, so that images can be compared.
    denoiser.sigmas.mul_(1 + 2e-7)
    sampler = DDIMSampler(denoiser, eta=0.0, steps=steps, silent=True)
    return lambda: sampler(x_T)


def k_diffusion(network: nn.Module, x_T: Tensor, steps: int) -> Run:
    from k_diffusion.external import DiscreteEpsDDPMDenoiser
    from k_diffusion.sampling import append_zero, sample_euler

    denoiser = DiscreteEpsDDPMDenoiser(network, ddim.Schedule.linear(T).alpha_bar[1:].float(), quantize=True)
    sigmas = append_zero(denoiser.sigmas[[t - 1 for t in nodes(steps)[:-1]]])  # Euler over these is DDIM
    return lambda: sample_euler(denoiser, x_T * (sigmas[0] ** 2 + 1).sqrt(), sigmas, disable=True)


PEERS = {"denoising-diffusion-pytorch": lucidrains, "azula": azula, "k-diffusion": k_diffusion}
CLIPS = {"denoising-diffusion-pytorch": True, "azula": True, "k-diffusion": False}


def nodes(steps: int) -> tuple[int, ...]:
    return tuple(round(T * i / steps) for i in range(steps, -1, -1))


def start(batch: int) -> Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(batch))


def ours(network: nn.Module, x_T: Tensor, steps: int, clip: bool = True) -> Run:
    denoise: Any = NetworkDenoiser(network, ddim.Schedule.linear(T))
    return lambda: ddim.sample(Clip(denoise) if clip else denoise, x_T, nodes(steps))


def agreement(run: Run, reference: Tensor) -> float:
    """The largest difference, as a share of the largest value there is."""
    return float((run() - reference).abs().max() / reference.abs().max())


def compare(network: nn.Module, batch: int, steps: int, repeats: int) -> dict[str, Any]:
    x_T = start(batch)
    auto = engine.pick_precision("auto", torch.device("cpu"))
    runs = {name: make(network, x_T, steps) for name, make in PEERS.items()}
    calls, differences = {}, {}
    reference = {clip: ours(network, x_T, steps, clip)() for clip in (True, False)}
    for name, run in runs.items():
        with counted(network) as sizes:
            differences[name] = agreement(run, reference[CLIPS[name]])
        calls[name] = [len(sizes), sum(sizes)]
    for precision in ("fp32", auto):
        ready = engine.prepared(network, precision)
        name = "ddim fp32" if precision == "fp32" else f"ddim auto ({auto})"
        runs[name] = ours(ready, x_T, steps)
        with counted(ready) as sizes:
            differences[name] = agreement(runs[name], reference[True])
        calls[name] = [len(sizes), sum(sizes)]
    seconds = alternate(runs, repeats, warm=0)
    mine = [k for k in seconds if k.startswith("ddim")]
    return {
        "batch": batch,
        "steps": steps,
        "x_T": f"torch.Generator().manual_seed({batch})",
        "network_calls": {k: v[0] for k, v in calls.items()},
        "network_images": {k: v[1] for k, v in calls.items()},
        "relative_difference": differences,
        "images_per_second": {k: spread([batch / s for s in v]) for k, v in seconds.items()},
        "speedup": {f"{k} / {p}": ratios(seconds[p], seconds[k]) for p in PEERS for k in mine},
    }


def check() -> None:
    import azula as _azula  # noqa: F401
    import denoising_diffusion_pytorch  # noqa: F401
    import diffusers  # noqa: F401
    import k_diffusion as _k_diffusion  # noqa: F401

    print(", ".join(f"{p} {importlib.metadata.version(p)}" for p in ("diffusers", *PEERS)), "can be imported")


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--check", action="store_true", help="only import the peers")
    args = options(made)
    if args.check:
        check()
        return
    network = DiffusersNetwork(unet()).eval()
    rows = []
    for batch, repeats in ((1, 1), (2, 1)) if args.quick else ((1, 5), (8, 3)):
        row = compare(network, batch, 2 if args.quick else 20, repeats)
        rows.append(row)
        print(f"batch {batch}: network calls {set(row['network_calls'].values())}, relative differences "
              + ", ".join(f"{k} {v:.1e}" for k, v in row["relative_difference"].items()))  # fmt: skip
        for name, ratio in row["speedup"].items():
            print(f"  {name}: {ratio['median']:.2f}x ({ratio['min']:.2f} to {ratio['max']:.2f})", flush=True)
    save("peers", {"network": NETWORK, "rows": rows}, args.quick)


if __name__ == "__main__":
    main()
