"""Edits, paths and agreement on continuous processes: the same promises, with real times."""

import math
from itertools import pairwise

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, noise, sample, tau
from ddim.process import edm, flow, subvp, ve, vp
from ddim.uses import by_strength, ddpm_interpolation, decode, encode, inpaint, partial_tau, same_latents

PROCESSES = {"ve": ve(), "edm": edm(), "flow": flow(), "vp": vp(), "subvp": subvp()}
SEEDS = [3, 4, 5]
X = 0.5 * noise([10, 11, 12], (1, 4, 4), dtype=torch.float64)


def every_process(test):
    return pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)(test)


def oracle(process):
    return GaussianDenoiser(process, 0.1, 0.25)


def pure(process, times):
    return process.at(times[0]).noise * noise(SEEDS, (1, 4, 4), dtype=torch.float64)


@every_process
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_strength_0_is_the_image_and_strength_1_is_plain_sampling(process, eta):
    times = tau(process, 12, "logsnr")
    assert torch.equal(by_strength(oracle(process), X, times, 0.0, seeds=SEEDS, eta=eta), X)
    full = by_strength(oracle(process), X, times, 1.0, seeds=SEEDS, eta=eta)
    plain = sample(oracle(process), pure(process, times), times, solver=DDIM(eta), seeds=SEEDS)
    assert torch.equal(full, plain)


@every_process
def test_strength_has_its_closed_form(process):
    """Noised to the highest time within half of T, then one affine walk: sqrt(c_S/c_0) prod cos."""
    times = partial_tau(tau(process, 12), 0.5, process.T)
    assert times[0] <= 0.5 * process.T and len(times) > 3
    at = process.at(times[0])
    noised = at.signal * X + at.noise * noise(SEEDS, (1, 4, 4), purpose="edit", dtype=X.dtype)
    phi = [math.atan2(process.at(t).noise, process.at(t).signal * 0.5) for t in times]
    gain = 0.5 / math.sqrt(at.signal**2 * 0.25 + at.noise**2) * math.prod(math.cos(a - b) for a, b in pairwise(phi))
    expected = 0.1 + gain * (noised - at.signal * 0.1)
    found = by_strength(oracle(process), X, tau(process, 12), 0.5, seeds=SEEDS)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@every_process
@pytest.mark.parametrize(("resample", "jump"), [(1, 1), (2, 3)])
def test_masks(process, resample, jump):
    times, options = tau(process, 10, "logsnr"), {"seeds": SEEDS, "resample": resample, "jump": jump}
    half = torch.zeros(1, 4, 4, dtype=torch.bool)
    half[:, :, 2:] = True
    assert torch.equal(inpaint(oracle(process), X, torch.zeros(1, 4, 4), times, **options), X)
    full = inpaint(oracle(process), X, torch.ones(1, 4, 4), times, **options)
    plain = sample(oracle(process), pure(process, times), times, solver=DDIM(1.0), seeds=SEEDS)
    assert torch.equal(full, plain)
    some = inpaint(oracle(process), X, half, times, **options)
    assert torch.equal(some[..., :2], X[..., :2]) and float((some - X)[..., 2:].abs().min()) > 1e-4


@every_process
def test_ddpm_interpolation_mixes_at_the_very_time_it_names(process):
    """Its ends are the two images noised at tau[0] to float64 and denoised; a rounded time would show."""
    times = partial_tau(tau(process, 10, "logsnr"), 0.4, process.T)
    a, b, ends = X[0], X[1], torch.tensor([0.0, 1.0])
    found = ddpm_interpolation(oracle(process), a, b, ends, times, seed=6)
    at = process.at(times[0])
    for i, (x, purpose) in enumerate([(a, "interpolate-a"), (b, "interpolate-b")]):
        noised = at.signal * x + at.noise * noise([6], x.shape, purpose=purpose, dtype=x.dtype)
        alone = sample(oracle(process), noised, times, solver=DDIM(1.0), seeds=[6])
        torch.testing.assert_close(found[i], alone[0], rtol=1e-12, atol=1e-12)


@every_process
def test_the_same_latents_agree_better_the_more_steps_there_are(process):
    x_T = pure(process, tau(process, 10, "logsnr"))
    taus = [tau(process, s, "logsnr") for s in (10, 40, 160)]
    rows = list(same_latents(oracle(process), x_T, taus, tau(process, 640, "logsnr"), seeds=SEEDS, etas=(0.0,)))
    apart = [float(row.distance.mean()) for row in rows]
    assert apart[0] > 3 * apart[1] > 9 * apart[2]


@every_process
def test_latents_of_real_times_come_back_from_their_file(process, tmp_path):
    from ddim import Latents

    z = encode(oracle(process), X, tau(process, 8, "logsnr"))
    z.save(tmp_path / "z.safetensors")
    back = Latents.load(tmp_path / "z.safetensors")
    assert back.recipe == z.recipe and back.recipe.tau == tau(process, 8, "logsnr")
    torch.testing.assert_close(decode(oracle(process), back), X, rtol=0, atol=1e-7)
