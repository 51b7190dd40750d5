"""`load` and `Model`: names become objects, and every path gives the same images as the lower floors do."""

import math

import pytest
import torch

import ddim
from ddim import DDIM, Clip, NetworkDenoiser, noise, sample, tau


def by_hand(tiny, seeds, label=None, solver=None, clip=False, steps=5):
    network, n = tiny.network(), len(seeds)  # as `sample` runs it: packed weights round differently
    label = torch.full((n,), tiny.null_label) if label is None else torch.as_tensor(label)
    denoise = NetworkDenoiser(lambda x, t: network(x, t, label), tiny.schedule)
    denoise = Clip(denoise) if clip else denoise
    return sample(denoise, noise(seeds, tiny.shape), tau(1000, steps), solver=solver, seeds=seeds)


def test_sample_is_the_lower_floors_put_together(tiny):
    torch.testing.assert_close(tiny.sample(3, steps=5, seed=7, clip=False), by_hand(tiny, [7, 8, 9]))
    torch.testing.assert_close(
        tiny.sample(seeds=[4, 2], steps=5, label=[1, 0], eta=1.0, clip=True),
        by_hand(tiny, [4, 2], [1, 0], DDIM(1.0), clip=True),
    )


def test_latents_explicit_times_and_seeds_agree(tiny):
    x_T = noise([0, 1], tiny.shape)
    torch.testing.assert_close(tiny.sample(latents=x_T, steps=5), tiny.sample(2, steps=5))
    times = (981, 640, 1, 0)
    expected = sample(tiny.denoiser(clip=False), x_T, times)
    torch.testing.assert_close(tiny.sample(latents=x_T, tau=times, clip=False), expected)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_batch_size_changes_nothing_but_rounding(tiny, eta):
    together = tiny.sample(5, steps=4, eta=eta, label=[0, 1, 2, 0, 1])
    apart = tiny.sample(5, steps=4, eta=eta, label=[0, 1, 2, 0, 1], batch_size=2)
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


def test_guidance_is_the_published_combination(tiny):
    """eps = eps_null + w (eps_label - eps_null) (Ho & Salimans, arXiv 2207.12598)."""
    x, label = noise([0, 1], tiny.shape), torch.tensor([0, 2])
    null = tiny.denoiser(clip=False)(x, 500).eps
    cond = tiny.denoiser(label=label, clip=False)(x, 500).eps
    guided = tiny.denoiser(label=label, guidance=3.0, clip=False)(x, 500).eps
    torch.testing.assert_close(guided, null + 3.0 * (cond - null), rtol=1e-4, atol=1e-5)


def test_decode_of_encode(tiny):
    x = tiny.sample(2, steps=5, label=[0, 1], clip=False)
    z = tiny.encode(x, steps=6, label=[0, 1])
    torch.testing.assert_close(tiny.decode(z, label=[0, 1]), x, rtol=0, atol=1e-3)


def test_precisions(tiny):
    exact = tiny.sample(2, steps=5, clip=False)
    torch.testing.assert_close(tiny.sample(2, steps=5, clip=False, precision="fp64"), exact, rtol=1e-3, atol=1e-3)
    half = tiny.sample(2, steps=5, clip=False, precision="bf16")
    error = float((half - exact).norm() / exact.norm())  # bf16 keeps 8 bits: 0.4 % an operation
    assert half.dtype == torch.float32 and 0 < error < 0.02
    torch.testing.assert_close(tiny.sample(2, steps=5, clip=False), exact)  # the loaded weights were not touched


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({}, "at least one image"),
        ({"n": 0}, "n = 0"),
        ({"n": 2, "seeds": [1]}, "not both"),
        ({"seeds": []}, "empty"),
        ({"seeds": [1], "seed": 5}, "seed = 5"),
        ({"n": 2, "tau": (1000, 500, 0), "spacing": "quadratic"}, "quadratic"),
        ({"n": 2, "label": 1.5}, "whole numbers"),
        ({"n": 2, "steps": 0}, "T = 1000, got steps = 0"),
        ({"n": 2, "steps": 1001}, "steps = 1001"),
        ({"n": 2, "eta": -0.1}, "-0.1"),
        ({"n": 2, "label": 3}, r"label 3 is outside 0\.\.2"),
        ({"n": 2, "label": [0, 1, 2]}, "2 images need 1 label or 2, got 3"),
        ({"n": 2, "guidance": 2.0}, "needs a label"),
        ({"n": 2, "solver": "rk99"}, "rk99"),
        ({"n": 2, "solver": "heun", "eta": 0.5}, "eta"),
        ({"n": 2, "precision": "fp7"}, "fp7"),
        ({"n": 2, "batch_size": 0}, "batch_size"),
        ({"latents": torch.zeros(2, 3, 8, 8)}, r"\(3, 8, 8\).*\(1, 8, 8\)"),
        ({"latents": torch.zeros(2, 1, 8, 8), "seeds": [1]}, "2 latents"),
    ],
)
def test_senseless_requests_name_their_numbers(tiny, kwargs, says):
    with pytest.raises(ValueError, match=says):
        tiny.sample(kwargs.pop("n", None), **kwargs)


def test_a_folder_of_pictures_does_not_hide_the_bundled_model(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "0.png").write_bytes(b"data of the same name")
    monkeypatch.chdir(tmp_path)
    assert ddim.load("mnist").shape == (1, 28, 28)


def test_what_is_not_there():
    with pytest.raises((ValueError, OSError), match="nowhere"):
        ddim.load("/nowhere/at/all")
    with pytest.raises(ValueError, match="warp"):
        ddim.load(device="warp")


def test_a_network_trained_on_0_to_1_gives_and_takes_minus_1_to_1(tmp_path):
    """The same weights, declared to speak [0, 1]: images come out as 2x - 1, and go in as (x + 1)/2."""
    from dataclasses import replace

    from conftest import save_tiny
    from ddim.model import Model

    plain = ddim.load(save_tiny(tmp_path / "m"))
    other = Model(replace(plain.checkpoint, data_range=(0.0, 1.0), clips=False))
    x = plain.sample(2, steps=3, clip=False)
    torch.testing.assert_close(other.sample(2, steps=3), 2 * x - 1)
    torch.testing.assert_close(other.encode(2 * x - 1, steps=3).x_T, plain.encode(x, steps=3).x_T, rtol=1e-4, atol=1e-3)
    there, back = (m.encode(y, steps=3, method="naive") for m, y in ((plain, x), (other, 2 * x - 1)))
    twice = there.certificate.psnr - 20 * math.log10(2)  # errors are twice as large in [-1, 1]
    torch.testing.assert_close(back.certificate.psnr, twice, rtol=0, atol=0.1)
    torch.testing.assert_close(back.certificate.max_error, 2 * there.certificate.max_error, rtol=0.02, atol=0)
    clipped = other.sample(2, steps=3, clip=True)
    assert float(clipped.min()) == -1.0 and float(clipped.max()) == 1.0  # into 0..1 as the network sees it


def test_a_files_own_walk_that_stops_at_1_is_walked_as_it_is(tiny):
    from dataclasses import replace

    from ddim.model import Model

    model = Model(replace(tiny.checkpoint, spacing="leading", steps_offset=1, ends_at=1))
    times = model.tau(50, "diffusers")
    assert times[:2] == (982, 962) and times[-2:] == (2, 1)  # Stable Diffusion's: set_alpha_to_one = False
    x_T = noise([0], tiny.shape)
    torch.testing.assert_close(
        model.sample(latents=x_T, tau=times, clip=False), sample(model.denoiser(clip=False), x_T, times)
    )
    with pytest.raises(ValueError, match="1 steps begins where it ends, at t = 1"):
        Model(replace(model.checkpoint, steps_offset=0)).tau(1, "diffusers")
