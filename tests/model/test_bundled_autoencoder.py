"""The autoencoder that comes with the package: diffusers loads it, pictures survive it, no model is made of it."""

import diffusers
import numpy as np
import pytest
import torch

import ddim
from ddim.model.loading import BUNDLED
from ddim.pixels import from_uint8
from ddim.refused import Refused
from ddim.uses import Reproduction

NAME = "cifar10-ae"


def pictures(side):
    """Smooth ones: a gradient in every channel, and a disc."""
    y, x = np.mgrid[:side, :side] / side
    disc = ((y - 0.5) ** 2 + (x - 0.4) ** 2 < 0.06)[..., None]
    shades = [np.stack([a, b, c], -1) for a, b, c in ((x, y, 1 - x), (0.3 + 0 * x, x * y, y), (1 - y, 0.5 + 0 * x, x))]
    return from_uint8(np.stack([(255 * np.where(disc, 1 - s, s)).astype(np.uint8) for s in shades]))


@pytest.mark.parametrize("side", [32, 64, 48])
def test_pictures_of_any_size_come_back(side):
    made = ddim.model.load_autoencoder(NAME)
    x = pictures(side)
    z = made.encode(x)
    assert z.shape == (3, 4, side // 4, side // 4) and 0.3 < float(z.std()) < 3
    mean = x.mean((2, 3), keepdim=True).expand_as(x)  # all that a latent which says nothing could give back
    assert bool((Reproduction.of(made.decode(z), x).psnr > Reproduction.of(mean, x).psnr + 5).all())
    assert made.facts["provenance"]["recipe"]["kind"] == "tiny" and made.facts["measured"]["psnr"] > 27


@torch.no_grad()
def test_diffusers_loads_it():
    theirs, ours = diffusers.AutoencoderTiny.from_pretrained(BUNDLED / NAME), ddim.model.load_autoencoder(NAME)
    x, scale, shift = pictures(32), theirs.config.scaling_factor, theirs.config.shift_factor
    z = (theirs.encode(x).latents - shift) * scale
    assert torch.allclose(z, ours.encode(x), atol=1e-4)
    assert torch.allclose(theirs.decode(z / scale + shift).sample, ours.decode(z), atol=1e-4)


def test_it_is_no_model_and_takes_its_own_pictures_alone():
    with pytest.raises(Refused, match="is an autoencoder alone"):
        ddim.load(NAME)
    made = ddim.model.load_autoencoder(NAME)
    with pytest.raises(Refused, match="multiples of 4, got 30x32"):
        made.encode(torch.zeros(1, 3, 30, 32))
    with pytest.raises(Refused, match="3 channels, got 1"):
        made.encode(torch.zeros(1, 1, 32, 32))
