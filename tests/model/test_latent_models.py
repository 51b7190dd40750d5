"""Models that walk in an autoencoder's latents: every verb goes through it, and no number is of both."""

import math

import pytest
import torch

import ddim
from conftest import save_latent
from ddim.refused import Refused


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return ddim.load(save_latent(tmp_path_factory.mktemp("latent") / "m"))


def test_two_certificates(model, tmp_path):
    """The inversion's is of latents, the autoencoder's of pictures; a file and its parts keep both."""
    x = ddim.noise(range(3), (3, 16, 16), purpose="pictures").clamp(-1, 1)
    z = model.encode(x, steps=8)
    states = model.space.encode(x)
    back = model.space.decode(states)
    error = (back - x).double().flatten(1)
    torch.testing.assert_close(z.fidelity.psnr, 10 * torch.log10(4 / error.square().mean(1)))
    torch.testing.assert_close(z.fidelity.max_error, error.abs().amax(1))
    plain = ddim.encode(model.denoiser(clip=False), states, model.tau(8))
    torch.testing.assert_close(z.certificate.psnr, plain.certificate.psnr)
    assert float(z.certificate.psnr.min()) > 60 > 30 > float(z.fidelity.psnr.max())
    inversion, autoencoder = z.said.splitlines()
    assert inversion.startswith("inversion, in latents") and autoencoder.startswith("autoencoder alone")
    torch.testing.assert_close(model.decode(z), back, rtol=0, atol=1e-3)  # what comes back is the autoencoder's picture
    z.save(tmp_path / "z.safetensors")
    kept = ddim.Latents.load(tmp_path / "z.safetensors")
    joined = ddim.Latents.join([kept.part(0, 1), kept.part(1, 3)])
    for found in (kept, joined):
        assert torch.equal(found.fidelity.psnr, z.fidelity.psnr)
        assert torch.equal(found.fidelity.max_error, z.fidelity.max_error)


def test_batches_are_the_same_pictures(model):
    a = model.sample(5, steps=3, seed=2)
    assert a.shape == (5, 3, 16, 16) and not a.requires_grad
    torch.testing.assert_close(model.sample(seeds=[4], steps=3), a[2:3], rtol=0, atol=1e-5)


def test_likelihood_of_pictures_is_refused(model, tmp_path):
    import numpy as np

    from ddim.jobs import Scoring, score_images

    job = score_images(
        lambda places: model.denoiser(clip=False), model.space, np.zeros((2, 16, 16, 3), np.uint8),
        Scoring(1e-2, 1, 2, seed=0), tmp_path / "r", device=model.device,
    )  # fmt: skip
    with pytest.raises(Refused, match="has a law of latents alone"):
        next(job)
    assert not (tmp_path / "r").exists()


def test_a_mask_at_the_resolution_of_latents(model):
    """A latent is painted where any of its four pixels is, kept where none is."""
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[5, 6] = mask[8:10, 8:12] = True
    wanted = torch.zeros(8, 8, dtype=torch.bool)
    wanted[2, 3] = wanted[4, 4:6] = True
    assert torch.equal(model.space.mask(mask), wanted)
    with pytest.raises(Refused, match="the mask is 8x8 and pictures are 16x16"):
        model.space.mask(wanted)


def test_distances_stay_those_of_latents(model):
    assert model.space.unit == 1.0 and math.isfinite(model.encode(torch.zeros(1, 3, 16, 16), steps=2).certificate.nfe)
