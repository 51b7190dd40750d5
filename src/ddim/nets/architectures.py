"""New autoencoders in diffusers' architectures, and the critic that looks at patches of what they make."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from ddim.nets.seeding import torch_randomness
from ddim.refused import Refused

AUTOENCODERS = {"kl": "AutoencoderKL", "tiny": "AutoencoderTiny"}
WIDEST = 4  # times the first level's channels, as in arXiv 2112.10752


def new_autoencoder(
    kind: str, *, shape: tuple[int, int, int], factor: int, latent_channels: int, width: int, blocks: int, seed: int = 0
) -> nn.Module:
    """A new diffusers `AutoencoderKL` ("kl") or `AutoencoderTiny` ("tiny") of pictures (C, H, W).

    Convolutions alone, no attention: what it does to a place hangs on what lies around it, so pictures of any size can
    be encoded, and decoded in tiles.

    Args:
        factor: how many times smaller a latent's sides are: 2, 4, 8, ...
        width: channels of the first level; of "kl" twice and four times as many below, of "tiny" the same everywhere.
        blocks: of a level.

    Raises:
        Refused: an unknown kind, or a factor that is no power of two; a width that cannot be grouped.
    """
    diffusers: Any = importlib.import_module("diffusers")
    if kind not in AUTOENCODERS:
        raise Refused(f"unknown `kind` {kind!r}; choose one of {', '.join(AUTOENCODERS)}")
    halvings = factor.bit_length() - 1
    if factor < 2 or factor != 1 << halvings:
        raise Refused(f"`factor` must be a power of two from 2, got {factor}")
    levels = halvings + 1
    common = {"in_channels": shape[0], "out_channels": shape[0], "latent_channels": latent_channels}
    made: nn.Module
    with torch_randomness(seed, "autoencoder"):
        if kind == "tiny":
            made = diffusers.AutoencoderTiny(
                **common, encoder_block_out_channels=(width,) * levels, decoder_block_out_channels=(width,) * levels,
                num_encoder_blocks=(1, *[blocks] * halvings), num_decoder_blocks=(*[blocks] * halvings, 1),
            )  # fmt: skip
        else:
            made = diffusers.AutoencoderKL(
                **common, down_block_types=("DownEncoderBlock2D",) * levels,
                up_block_types=("UpDecoderBlock2D",) * levels, norm_num_groups=_groups(width), layers_per_block=blocks,
                block_out_channels=tuple(width * min(2**i, WIDEST) for i in range(levels)),
                sample_size=max(shape[1:]), mid_block_add_attention=False, force_upcast=False,
            )  # fmt: skip
    return made


def _groups(width: int) -> int:
    """Of four channels or more: a group of one would take the brightness of a picture out."""
    return max(n for n in range(1, max(1, width // 4) + 1) if width % n == 0)


class PatchCritic(nn.Module):
    """Says of every patch of a picture how real it looks (PatchGAN, arXiv 1611.07004): (B, C, H, W) -> (B, 1, h, w).

    Args:
        channels: of the pictures. width: of its first layer. halvings: before the patches are judged.
    """

    def __init__(self, channels: int, width: int = 32, halvings: int = 2, seed: int = 0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        with torch_randomness(seed, "critic"):
            for i in range(halvings):
                wide = width * min(2**i, 2 * WIDEST)
                norm = nn.GroupNorm(_groups(wide), wide) if i else nn.Identity()
                layers += [nn.Conv2d(channels, wide, 4, 2, 1), norm, nn.LeakyReLU(0.2)]
                channels = wide
            layers.append(nn.Conv2d(channels, 1, 3, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        said: Tensor = self.layers(x)
        return said


class Trainee(nn.Module):
    """An autoencoder in training, with a critic or none; calling it gives the loss of a batch.

    mean |x - x'| + kl_weight KL / numbers of x, where x' = D(mean + std eps) (arXiv 2112.10752, appendix G, its sums
    over a picture divided by the numbers of one). With a critic, its hinge loss, and -critic(x') with the weight that
    makes its gradient at the last layer critic_weight times that of the first term (arXiv 2012.09841, eq. 7).
    Gradients of both pass; the value is that of the first two terms alone, so that it can be compared before and after.
    """

    def __init__(
        self, autoencoder: nn.Module, critic: PatchCritic | None, kl_weight: float, critic_weight: float
    ) -> None:
        super().__init__()
        self.autoencoder, self.critic = autoencoder, critic
        self.kl_weight, self.critic_weight = kl_weight, critic_weight

    def forward(self, x: Tensor, eps: Tensor, judged: bool = False) -> Tensor:
        """Pictures in [-1, 1], noise of the latents' shape; judged: with the critic."""
        module: Any = self.autoencoder
        said = module.encode(x)
        own = said.get("latent_dist")
        z = said.latents if own is None else own.mean + own.std * eps
        made = module.decode(z).sample.float()
        off = (made - x).abs().mean()
        kl = 0.0 if own is None else self.kl_weight * own.kl().float().sum() / x.numel()
        loss: Tensor = off + kl
        return loss + self._judged(x, made, off) if judged else loss

    def _judged(self, x: Tensor, made: Tensor, off: Tensor) -> Tensor:
        """The critic's loss and what it says against the pictures: gradients, and the value 0."""
        critic = self.critic
        assert critic is not None
        wrong = torch.relu(1 - critic(x)).mean() + torch.relu(1 + critic(made.detach())).mean()
        fixed = {name: p.detach() for name, p in critic.named_parameters()}
        against = -torch.func.functional_call(critic, fixed, (made,)).float().mean()
        last = self._last()
        sizes = [torch.autograd.grad(term * LARGE, last, retain_graph=True)[0].norm() for term in (off, against)]
        weight = self.critic_weight * (sizes[0] / (sizes[1] + 1e-4 * LARGE)).clamp(max=1e4).detach()
        terms: Tensor = 0.5 * wrong.float() + weight * against
        return terms - terms.detach()

    def _last(self) -> nn.Parameter:
        """The weights of the layer that makes the picture."""
        decoder: Any = self.autoencoder.decoder
        layer = decoder.conv_out if hasattr(decoder, "conv_out") else decoder.layers[-1]
        weight: nn.Parameter = layer.weight
        return weight


LARGE = 2.0**14  # times what is small, so that fp16 holds its gradient
