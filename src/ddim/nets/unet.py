"""Networks by name: diffusers' `UNet2DModel` at sizes that are known to train, and the adapter our code calls.

A preset fixes channels, depth and where attention sits; image shape and classes come from the data. The
architectures are diffusers', because its folder format is what everybody else reads.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ddim.nets.scoreunet import ScoreUnet
from ddim.nets.seeding import torch_randomness
from ddim.refused import Refused


@dataclass(frozen=True)
class Preset:
    """Channels of each level (every level halves the image), blocks a level, and the levels with attention.

    `lr` and `batch_size`: for the small ones those with which an hour taught most (docs/training.md), else DDPM's rate.
    """

    channels: tuple[int, ...]
    layers: int
    attention: tuple[int, ...]
    groups: int
    about: str
    head_dim: int | None = 32
    dropout: float = 0.0
    ddpm: bool = False  # the details in which Ho et al.'s network differs from diffusers' defaults
    lr: float = 2e-4
    batch_size: int = 64

    @property
    def divisor(self) -> int:
        """Height and width must be multiples of this: each level but the last halves them."""
        return 1 << (len(self.channels) - 1)


def _cifar10(about: str) -> Preset:
    return Preset((128, 256, 256, 256), 2, (1,), 32, about, head_dim=None, dropout=0.1, ddpm=True)


def _small(channels: tuple[int, ...], layers: int, groups: int, about: str) -> Preset:
    return Preset(channels, layers, (len(channels) - 1,), groups, about, lr=2e-3, batch_size=32)


PRESETS: dict[str, Preset] = {
    "digits": _small((32, 64), 1, 8, "8x8 grey digits: seconds on a CPU"),
    "mnist": _small((24, 64, 128), 1, 8, "28x28 or 32x32 grey on a CPU, 2.6M"),
    "grey32": _small((32, 64, 128), 2, 8, "28x28 or 32x32 grey, wider and twice as deep, 3.9M"),
    "cifar10-small": _small((64, 96, 128), 1, 16, "32x32 colour on a CPU, 3.8M"),
    "colour32": _small((32, 96, 144), 1, 16, "32x32 colour on a CPU, 3.8M, a third faster a step"),
    "colour32-small": _small((16, 32, 64), 1, 8, "32x32 colour, 0.7M, a sixth of colour32's arithmetic"),
    "cifar10": _cifar10("32x32 colour, the 35.7M network of Ho et al. 2020"),
    "64": Preset((96, 192, 288, 384), 2, (2, 3), 32, "64x64 colour, 50M"),
    "128": Preset((64, 128, 192, 256, 384), 2, (3, 4), 32, "128x128 colour, 48M"),
}


def build(
    preset: str, *, shape: tuple[int, int, int], num_classes: int | None = None, seed: int = 0, fourier: bool = False
) -> nn.Module:
    """A new diffusers `UNet2DModel` of this preset for images of this shape.

    Args:
        preset: a name of `PRESETS`.
        shape: (C, H, W); H and W need not be equal.
        num_classes: K makes it class-conditional with K + 1 embeddings; the last one, K, is the null label.
        seed: decides the initial weights.
        fourier: it is told the noise, takes random Fourier features of its logarithm and divides its output by it: a
            score (NCSN++, arXiv 2011.13456).

    Raises:
        Refused: an unknown name, a size its levels cannot halve, fewer than one class.
    """
    if preset not in PRESETS:
        raise Refused(f"unknown preset {preset!r}; choose one of {', '.join(PRESETS)}")
    p, (c, h, w) = PRESETS[preset], shape
    if h % p.divisor or w % p.divisor or min(h, w) < p.divisor:
        near = [max(p.divisor, round(n / p.divisor) * p.divisor) for n in (h, w)]
        raise Refused(
            f"preset {preset!r} halves the image {len(p.channels) - 1} times, so height and width must be multiples "
            f"of {p.divisor}, got {h}x{w}; give `size` {near[0]}x{near[1]} or a preset with fewer levels"
        )
    if num_classes is not None and num_classes < 1:
        raise Refused(f"a class-conditional network needs at least 1 class, got {num_classes}")
    from diffusers import UNet2DModel

    levels = range(len(p.channels))
    options: dict[str, Any] = {
        "sample_size": (h, w), "in_channels": c, "out_channels": c, "block_out_channels": p.channels,
        "layers_per_block": p.layers, "norm_num_groups": p.groups, "attention_head_dim": p.head_dim,
        "dropout": p.dropout, "num_class_embeds": None if num_classes is None else num_classes + 1,
        "down_block_types": tuple("AttnDownBlock2D" if i in p.attention else "DownBlock2D" for i in levels),
        "up_block_types": tuple("AttnUpBlock2D" if i in p.attention else "UpBlock2D" for i in reversed(levels)),
    }  # fmt: skip
    if p.ddpm:
        options |= {"norm_eps": 1e-6, "flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0}
    if fourier:
        options["time_embedding_type"] = "fourier"
    with torch_randomness(seed, "weights"):
        return cast(nn.Module, UNet2DModel(**options))  # type: ignore[no-untyped-call]  # diffusers has no types


PLAIN = "UNet2DModel"
CHANGES = "_ddim"
"""Key of a network's configuration for what no `UNet2DModel` configuration can say; "_" as diffusers' own remarks."""


class DiffusersNetwork(nn.Module):
    """A `UNet2DModel` as network(x, t, label) -> tensor.

    Args:
        unet: the diffusers network. With class embeddings, the last one is the null label.
        null_label: the label that means "any class", or None where there is none.
    """

    def __init__(self, unet: nn.Module, null_label: int | None = None) -> None:
        super().__init__()
        self.unet = unet
        self.null_label = null_label

    @property
    def config(self) -> dict[str, Any]:
        """What the network computes by: its configuration without the remarks diffusers keeps there."""
        everything: Any = self.unet.config
        return {k: v for k, v in everything.items() if not k.startswith("_") or k == CHANGES}

    @property
    def time_table(self) -> nn.Embedding | None:
        """The table of times, where the network has one in place of sinusoids."""
        first = getattr(self.unet, "time_proj", None)
        return first if isinstance(first, nn.Embedding) else None

    @property
    def kind(self) -> str:
        """The class of the network, as a model folder names it."""
        everything: Any = self.unet.config
        return str(everything.get("_class_name", type(self.unet).__name__))

    @property
    def is_plain(self) -> bool:
        """Whether diffusers builds the same network from the configuration."""
        return self.kind == PLAIN and not self.config.get(CHANGES)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), t int64 (B,) 0-based -> (B, C, H, W).

        label: int64 (B,); None for the null label; or float (B, K) weights, for a class embedding that is a mix.
        """
        if label is not None and label.is_floating_point() and not isinstance(self.unet, ScoreUnet):
            return self._mixed(x, t, label)
        if label is None and self.null_label is not None:
            label = torch.full((len(x),), self.null_label, dtype=torch.int64, device=x.device)
        out: Tensor = self.unet(x, t, class_labels=label).sample
        return out

    def _mixed(self, x: Tensor, t: Tensor, weights: Tensor) -> Tensor:
        """The network under sum_k weights[k] embedding[k].

        A view of it for this call alone, which shares all but the embedding layer: other threads may be calling it too.
        """
        layer: Any = self.unet.class_embedding
        mix = weights.to(layer.weight) @ layer.weight[: weights.shape[1]]
        view: Any = copy.copy(self.unet)
        view._modules = self.unet._modules | {"class_embedding": _Answer(mix)}
        unused = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        out: Tensor = view(x, t, class_labels=unused).sample
        return out


class _Answer(nn.Module):
    """An embedding that is settled, whatever class is asked for."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, _label: Tensor) -> Tensor:
        return self.answer
