"""Autoencoders of diffusers, between pictures and the latents that a process walks in."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ddim.files import digest, weights_hash
from ddim.refused import Refused

PIXELS = 512 * 512
"""Of the pictures that are encoded or decoded at once, where there are several: 512x512 goes one by one."""
FACTORS = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")


class Autoencoder(nn.Module):
    """Pictures x in [-1, 1] as latents of about mean 0 and std 1 (arXiv 2112.10752, section 3.1 and appendix D.1).

    z = (E(x) - shift) scale, x = D(z / scale + shift). E is the mean where it is a Gaussian (`AutoencoderKL`), and the
    point before quantisation of a `VQModel`, whose D quantises first. Float32, whatever the state is.

    Args:
        module: diffusers' `AutoencoderKL`, `AutoencoderTiny` or `VQModel`; its configuration has scale and shift
            (scaling_factor, shift_factor), or those of each channel (latents_mean, latents_std).
        sha256: of the file of its weights; default: of themselves.
        changes: settings in place of the module's own.

    Raises:
        Refused: a scale of 0, or a configuration whose two halves do not fit.
    """

    scale: Tensor
    shift: Tensor
    facts: Mapping[str, Any] = MappingProxyType({})  # what the folder it was read from says of it
    notes: tuple[str, ...] = ()

    def __init__(self, module: nn.Module, sha256: str = "", changes: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.module, self.changes = module.requires_grad_(False), dict(changes or {})
        self.sha256 = sha256 or weights_hash(module.state_dict())
        config = self.config
        self.factor = factor_of(config)
        self.channels = int(config.get("vq_embed_dim") or config["latent_channels"])
        self.pictured = int(config["in_channels"])
        if self.pictured != config["out_channels"]:
            raise Refused(f"the autoencoder takes {self.pictured} channels and returns {config['out_channels']}")
        scale, shift = affine(config, self.channels)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    @property
    def kind(self) -> str:
        """Its class, as a folder names it."""
        return type(self.module).__name__

    @property
    def config(self) -> dict[str, Any]:
        """What it computes by, without diffusers' remarks."""
        everything: Any = self.module.config
        return {k: v for k, v in everything.items() if not k.startswith("_")} | self.changes

    @property
    def identity(self) -> str:
        """A short hash of its weights' file and of what it computes by."""
        return digest([self.sha256, self.kind, {k: v for k, v in self.config.items() if v is not None}])

    @property
    def plain(self) -> Self:
        """The same without scale and shift."""
        usual = {"scaling_factor": 1.0, "shift_factor": 0.0, "latents_mean": None, "latents_std": None}
        own = self.config
        return type(self)(self.module, self.sha256, {k: v for k, v in usual.items() if k in own})

    def standardised(self, mean: Tensor, std: float) -> Self:
        """The same autoencoder, scaled so that latents of these means (C,) and this std have mean 0 and std 1.

        LDMPipeline knows scaling_factor alone, so the means go into the 1x1 convolutions around the latents where there
        are such: the same function. Elsewhere their mean is the shift_factor, if its configuration has one.
        """
        said: dict[str, Any] = {k: None for k in FACTORS if k in self.config} | {"scaling_factor": 1.0 / std}
        if self.config.get("norm_type") != "spatial" and has_convolutions(self.module):
            moved = copy.deepcopy(self.module)
            centre(moved, mean)
            return type(self)(moved.eval(), weights_hash(moved.state_dict()), said)
        if "shift_factor" in said:
            apart = float(mean.var(correction=0))
            said |= {"shift_factor": float(mean.mean()), "scaling_factor": (std**2 + apart) ** -0.5}
        return type(self)(self.module, self.sha256, said)

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Of the latents of pictures (C, H, W).

        Raises:
            Refused: other channels, or sides that cannot be halved as often.
        """
        c, h, w = shape
        if c != self.pictured:
            raise Refused(f"the autoencoder takes pictures of {self.pictured} channels, got {c}")
        if h % self.factor or w % self.factor or min(h, w) < self.factor:
            near = "x".join(str(max(1, round(n / self.factor)) * self.factor) for n in (h, w))
            raise Refused(
                f"the autoencoder halves pictures {self.factor.bit_length() - 1} times, so height and width must be "
                f"multiples of {self.factor}, got {h}x{w}; give pictures of {near}"
            )
        return self.channels, h // self.factor, w // self.factor

    def image_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Of the pictures of latents (C, H, W).

        Raises:
            Refused: other channels.
        """
        c, h, w = shape
        if c != self.channels:
            raise Refused(f"the autoencoder's latents have {self.channels} channels, and the network walks in {c}")
        return self.pictured, h * self.factor, w * self.factor

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] -> latents, a few at once."""
        self.latent_shape(tuple(x.shape[1:]))
        return self._by_parts(self._encoded, x, x[0].numel() // self.pictured if len(x) else 1)

    def decode(self, z: Tensor) -> Tensor:
        """Latents -> pictures in [-1, 1] (not clamped), a few at once."""
        self.image_shape(tuple(z.shape[1:]))
        return self._by_parts(self._decoded, z, z[0, 0].numel() * self.factor**2 if len(z) else 1)

    def moments(self, x: Tensor) -> Tensor:
        """Pictures -> (B, M, C, H, W): the mean and, of a Gaussian latent, the std; without shift and scale."""
        self.latent_shape(tuple(x.shape[1:]))
        return self._by_parts(self._moments, x, x[0].numel() // self.pictured if len(x) else 1)

    def _by_parts(self, of: Any, given: Tensor, pixels: int) -> Tensor:
        at_once = max(1, PIXELS // pixels)
        parts = torch.split(given.to(self.scale.dtype), at_once)  # type: ignore[no-untyped-call]  # torch has no types
        return torch.cat([of(part) for part in parts]).to(given.dtype)

    def _encoded(self, x: Tensor) -> Tensor:
        return (self._moments(x)[:, 0] - self.shift) * self.scale

    def _moments(self, x: Tensor) -> Tensor:
        module: Any = self.module
        said = module.encode(x)
        own = said.get("latent_dist")
        return said.latents[:, None] if own is None else torch.stack([own.mean, own.std], 1)

    def _decoded(self, z: Tensor) -> Tensor:
        module: Any = self.module
        out: Tensor = module.decode(z / self.scale + self.shift).sample
        return out


def factor_of(config: Any) -> int:
    """How many times larger the pictures' sides are than those of their latents.

    Raises:
        Refused: the decoder does not enlarge by what the encoder shrinks.
    """
    if "num_encoder_blocks" in config:
        factor = 2 ** (len(config["num_encoder_blocks"]) - 1)
        back = config["upsampling_scaling_factor"] ** (len(config["num_decoder_blocks"]) - 1)
    else:
        widths = len(config["block_out_channels"])
        levels = [len(config[name]) for name in ("down_block_types", "up_block_types")]
        if levels != [widths, widths]:
            raise Refused(f"the autoencoder has {widths} block_out_channels, but {levels[0]} down and {levels[1]} up")
        factor = back = 2 ** (widths - 1)
    if back != factor:
        raise Refused(f"the autoencoder shrinks pictures by {factor} and enlarges latents by {back}")
    return int(factor)


def affine(config: Any, channels: int) -> tuple[Tensor, Tensor]:
    """(scale, shift), each (C, 1, 1) or (1, 1, 1): a latent is (E(x) - shift) scale.

    Raises:
        Refused: a scale of 0 or below, or anything that is no finite number.
    """
    said = {name: config.get(name) for name in FACTORS}
    mean, std = said["latents_mean"], said["latents_std"]
    by_channel = mean is not None or std is not None
    lists = (mean or [0.0], std or [1.0])
    if by_channel and any(len(v) not in (1, channels) for v in lists):
        raise Refused(f"latents_mean and latents_std must hold {channels} numbers, one a channel of the latents")
    if by_channel and said["shift_factor"]:
        raise Refused("the autoencoder has shift_factor and latents_mean: only one of them can be meant")
    shift = torch.tensor(lists[0] if by_channel else [said["shift_factor"] or 0.0], dtype=torch.float64)
    factor = 1.0 if said["scaling_factor"] is None else float(said["scaling_factor"])
    if not (math.isfinite(factor) and factor > 0):
        raise Refused(f"the autoencoder's scaling_factor must be a number above 0, got {factor:g}")
    scale = factor / torch.tensor(lists[1], dtype=torch.float64)
    if not bool(scale.isfinite().all() and (scale > 0).all() and shift.isfinite().all()):
        raise Refused("the autoencoder's latents_mean, latents_std and shift_factor must be finite, and stds above 0")
    return scale.float().view(-1, 1, 1), shift.float().view(-1, 1, 1)


def has_convolutions(module: Any) -> bool:
    """Whether a 1x1 convolution lies before and behind the latents."""
    return all(getattr(module, name, None) is not None for name in ("quant_conv", "post_quant_conv"))


def centre(module: Any, mean: Tensor) -> None:
    """Take the means (C,) out of the latents between the two convolutions, and of the codes that are quantised to."""
    before, after, c = module.quant_conv, module.post_quant_conv, len(mean)
    with torch.no_grad():
        before.bias[:c] -= mean.to(before.bias)
        after.bias += after.weight[:, :, 0, 0] @ mean.to(after.weight)
        if hasattr(module, "quantize"):
            module.quantize.embedding.weight -= mean.to(after.weight)
