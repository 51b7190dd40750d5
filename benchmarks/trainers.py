"""The trainers that are compared, each as `steps(n) -> losses`: ddim's loop, diffusers' recipe, lucidrains' Trainer.

All start from the same weights, read the same folder of PNGs at the same batch size, and predict eps under Ho et
al.'s linear schedule. The rest is each trainer's own: optimizer, averaging, clipping, loading.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from common import unet
from PIL import Image
from torch import nn

from ddim.data import Batches, open_images
from ddim.jobs import Denoising, Recipe, fit, new_state
from ddim.nets import DiffusersNetwork

ENDLESS = 10**9


@dataclass(frozen=True)
class Task:
    """What all trainers are given. lr None: each trainer's own default, warm-up and decay; else this, constant."""

    folder: Path
    preset: str
    shape: tuple[int, int, int]
    batch: int
    seed: int = 0
    lr: float | None = None
    warmup: int = 500
    device: str = "cpu"

    @property
    def mode(self) -> str:
        return "L" if self.shape[0] == 1 else "RGB"

    @property
    def net(self) -> nn.Module:
        return unet(self.preset, self.shape, self.seed)


class Trainer(Protocol):
    @property
    def network(self) -> nn.Module: ...  # the UNet2DModel being trained

    def steps(self, n: int) -> list[float]: ...  # n optimizer steps; their losses, where the trainer tells them


class Ours:
    """`ddim train`'s loop: decoded once to a memory-mapped array, then read by index."""

    def __init__(self, task: Task, precision: str) -> None:
        recipe = Recipe(
            prediction="eps", batch_size=task.batch, precision=precision, seed=task.seed, warmup=task.warmup,
            **({} if task.lr is None else {"lr": task.lr}),
        )  # fmt: skip
        images = open_images(task.folder, cache=task.folder.parent / f"{task.folder.name}-cache")
        state = new_state(recipe, task.preset, task.shape, None, task.device)
        self.network: nn.Module = state.unwrapped.unet
        batches = Batches(images, task.batch, task.seed, labelled=False)
        self.loop = fit(state, batches, Denoising.of(recipe), max_steps=ENDLESS)

    def steps(self, n: int) -> list[float]:
        return [next(self.loop).loss for _ in range(n)]


class Pngs(torch.utils.data.Dataset[torch.Tensor]):
    """A picture decoded by PIL and normalised by torchvision at every access, as diffusers' example does."""

    def __init__(self, task: Task) -> None:
        from torchvision import transforms as t

        self.paths, self.mode, size = sorted(task.folder.glob("*.png")), task.mode, task.shape[1:]
        steps = [t.Resize(size), t.CenterCrop(size), t.ToTensor(), t.Normalize([0.5], [0.5])]
        self.prepare = t.Compose(steps)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> torch.Tensor:
        with Image.open(self.paths[i]) as picture:
            return self.prepare(picture.convert(self.mode))


class DiffusersRecipe:
    """What diffusers' train_unconditional example does with its defaults and --use_ema, written anew from its
    description: accelerate, AdamW(1e-4, betas 0.95 0.999, decay 1e-6), cosine after 500 steps of warm-up,
    gradients clipped at 1, an average with power 3/4, a DataLoader in this process. `precision` "no" is its default.
    """

    def __init__(self, task: Task, precision: str = "no") -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from diffusers import DDPMScheduler
        from diffusers.optimization import get_scheduler
        from diffusers.training_utils import EMAModel

        AcceleratorState._reset_state()  # or the precision of the trainer made before would hold for this one
        self.accelerator = Accelerator(mixed_precision=precision, cpu=task.device == "cpu")
        net = task.net.train()
        optimizer = torch.optim.AdamW(
            net.parameters(), lr=task.lr or 1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
        )
        schedule = get_scheduler(
            "cosine" if task.lr is None else "constant_with_warmup", optimizer=optimizer,
            num_warmup_steps=task.warmup, num_training_steps=100_000,
        )  # fmt: skip
        loader = torch.utils.data.DataLoader(Pngs(task), batch_size=task.batch, shuffle=True, drop_last=True)
        self.network, self.optimizer, self.loader, self.schedule = self.accelerator.prepare(
            net, optimizer, loader, schedule
        )
        self.ema = EMAModel(net.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=3 / 4)
        self.ema.to(self.accelerator.device)
        self.noising = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
        torch.manual_seed(task.seed)
        self.batches = self._endless()

    def _endless(self) -> Iterator[torch.Tensor]:
        while True:
            yield from self.loader

    def steps(self, n: int) -> list[float]:
        return [self._step(next(self.batches)) for _ in range(n)]

    def _step(self, x0: torch.Tensor) -> float:
        eps = torch.randn(x0.shape, device=x0.device)
        t = torch.randint(0, 1000, (len(x0),), device=x0.device)
        with self.accelerator.accumulate(self.network):
            out = self.network(self.noising.add_noise(x0, eps, t), t).sample
            loss = nn.functional.mse_loss(out.float(), eps.float())
            self.accelerator.backward(loss)
            self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            self.optimizer.zero_grad()
        self.ema.step(self.network.parameters())
        return float(loss.detach())


class Lucidrains:
    """denoising-diffusion-pytorch's Trainer around GaussianDiffusion, with its defaults, never sampling."""

    def __init__(self, task: Task) -> None:
        from denoising_diffusion_pytorch import GaussianDiffusion
        from denoising_diffusion_pytorch import Trainer as TheirTrainer
        from peers import ForLucidrains

        self.network = task.net
        diffusion = GaussianDiffusion(
            ForLucidrains(DiffusersNetwork(self.network), task.shape[0]), image_size=task.shape[1:],
            objective="pred_noise", beta_schedule="linear",
        )  # fmt: skip
        self.trainer: Any = TheirTrainer(
            diffusion, str(task.folder), train_batch_size=task.batch, train_num_steps=0, calculate_fid=False,
            save_and_sample_every=ENDLESS, results_folder=str(task.folder.parent / "lucidrains"),
            **({} if task.lr is None else {"train_lr": task.lr}),
        )  # fmt: skip
        torch.manual_seed(task.seed)

    def steps(self, n: int) -> list[float]:
        self.trainer.train_num_steps += n
        with contextlib.redirect_stdout(io.StringIO()):  # "training complete", after every block
            self.trainer.train()
        return []
