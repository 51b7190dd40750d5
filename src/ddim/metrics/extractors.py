"""Feature extractors by name: what turns images into the numbers that are compared.

An extractor states its name, its length D, how it resizes and a hash of its weights, because a distance means
nothing without them. Heavy packages are imported only when their extractor is asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ddim.files import weights_hash
from ddim.metrics.bundled import BaseExtractor, Colour, Digits, Extractor, RawPixels
from ddim.metrics.own_files import FILES, in_file
from ddim.refused import Refused

NAMES = ("mnist", "colour", "inception", "dinov2", "pixels")


class Inception(BaseExtractor):
    """The standard network of FID: TensorFlow's of 2015-12-05 as torch-fidelity ports it, through torchmetrics."""

    name = "inception"
    resize = "TensorFlow 1 bilinear to 299x299, from uint8"

    def __init__(self, device: torch.device | str = "cpu") -> None:
        if find_spec("torch_fidelity") is None:
            raise Refused("extractor 'inception' needs torch-fidelity: pip install 'ddim[inception]'")
        from torchmetrics.image.fid import NoTrainInceptionV3

        try:
            network = NoTrainInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])
        except OSError as error:
            raise OSError(f"the Inception weights could not be fetched: {str(error).splitlines()[0]}") from None
        self.network, self.device = network.to(device), device
        self.weights_hash = weights_hash(network.state_dict())

    @torch.no_grad()
    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        levels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(self.device, torch.uint8)
        rgb = levels.expand(-1, 3, -1, -1) if levels.shape[1] == 1 else levels
        out = self.network._torch_fidelity_forward(rgb.contiguous())
        return out[0].reshape(len(images), -1).cpu(), out[1].cpu()


class Dino(BaseExtractor):
    """DINOv2's class token: ViT-L/14, 1024 numbers, images at 224x224 by antialiased bicubic, as in EDM2."""

    name = "dinov2"
    resize = "antialiased bicubic to 224x224"

    def __init__(self, device: torch.device | str = "cpu", source: str = "facebook/dinov2-large") -> None:
        if find_spec("transformers") is None:
            raise Refused("extractor 'dinov2' needs transformers: pip install 'ddim[dinov2]'")
        try:
            self.network: Any = (
                import_module("transformers").AutoModel.from_pretrained(source, use_safetensors=True).eval().to(device)
            )
        except OSError as error:
            raise OSError(f"DINOv2 could not be loaded from {source}: {str(error).splitlines()[0]}") from None
        self.device, self.weights_hash = device, weights_hash(self.network.state_dict())

    @torch.no_grad()
    def both(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        rgb = images.expand(-1, 3, -1, -1).to(self.device, torch.float32)
        unit = (functional.interpolate(rgb, (224, 224), mode="bicubic", antialias=True).clamp(-1, 1) + 1) / 2
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in IMAGENET)
        return self.network((unit - mean) / std).last_hidden_state[:, 0].float().cpu(), None


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def usual(channels: int) -> str:
    """The bundled extractor for images of so many channels: digits for grey, "colour" for RGB.

    Raises:
        Refused: any other number.
    """
    if channels not in (1, 3):
        raise Refused(f"no bundled extractor reads {channels} channels: give `extractor` a file of your own, or pixels")
    return "mnist" if channels == 1 else "colour"


def extractor(name: str, device: torch.device | str = "cpu", *, trust_code: bool = False) -> Extractor:
    """The extractor of that name (mnist, colour, inception, dinov2, pixels), or one in a file.

    Args:
        name: or a file: .onnx, or .safetensors with weights of the networks of mnist or colour, which hold no code; or
            TorchScript (.pt) and .pt2, which do.
        trust_code: load a file that can run code.

    Raises:
        Refused: an unknown name, a package that is not installed, a file that can run code and is not trusted.
        OSError: weights that cannot be had.
    """
    if name == "mnist":
        return Digits(device)
    if name == "colour":
        return Colour(device)
    if name == "inception":
        return Inception(device)
    if name == "dinov2":
        return Dino(device)
    if name == "pixels":
        return RawPixels()
    if Path(name).is_file():
        return in_file(Path(name), device, NAMES, trust_code=trust_code)
    raise Refused(f"there is no extractor {name!r}: choose {', '.join(NAMES)} or {FILES}")
