"""Paths keep what they promise: norms, ends, symmetry, the law of independent latents; and their guards hold."""

import math

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, Schedule, noise, sample, tau
from ddim.uses import ddpm_interpolation, lerp, path, path_grid, rule_named, slerp, vp_lerp

U = torch.linspace(0, 1, 9)
SCHEDULE = Schedule.linear(1000)


def pair(shape=(3, 8, 8), seeds=(0, 1), dtype=torch.float64):
    return noise(seeds, shape, dtype=dtype)


def test_slerp_walks_an_arc_of_equal_angles():
    """On the unit circle: from angle 0 to 2, at u the angle is 2u."""
    a = torch.tensor([1.0, 0.0], dtype=torch.float64)
    b = torch.tensor([math.cos(2.0), math.sin(2.0)], dtype=torch.float64)
    for u in (0.0, 0.25, 0.5, 1.0):
        expected = torch.tensor([math.cos(2 * u), math.sin(2 * u)], dtype=torch.float64)
        torch.testing.assert_close(slerp(a, b, u), expected, rtol=1e-12, atol=1e-12)


def test_slerp_keeps_equal_norms():
    a, b = pair()
    b = b * (a.norm() / b.norm())
    torch.testing.assert_close(slerp(a, b, U).flatten(1).norm(dim=1), a.norm().expand(9), rtol=1e-12, atol=0)


@pytest.mark.parametrize("rule", [slerp, vp_lerp, lerp])
def test_every_rule_meets_its_ends_and_is_symmetric(rule):
    a, b = pair()
    there, back = rule(a, b, U), rule(b, a, U)
    torch.testing.assert_close(there[0], a)
    torch.testing.assert_close(there[-1], b)
    torch.testing.assert_close(there, back.flip(0))
    assert there.shape == (9, 3, 8, 8)
    assert rule(a, b, 0.5).shape == (3, 8, 8) and torch.equal(rule(a, b, torch.tensor(0.5)), rule(a, b, 0.5))


def test_the_middle_of_the_straight_line_has_lost_its_norm_and_the_others_have_not():
    """E|x|^2/d at the middle: 0.5 for lerp, 1 for slerp and vp (docs/theory.md, paths between latents)."""
    a, b = noise(range(60), (768,)), noise(range(60, 120), (768,))
    energy = lambda x: float(x.double().square().mean())  # noqa: E731
    assert energy(lerp(a, b, 0.5, batched=True)) == pytest.approx(0.5, abs=0.02)
    assert energy(slerp(a, b, 0.5, batched=True)) == pytest.approx(1.0, abs=0.03)
    assert energy(vp_lerp(a, b, 0.5, batched=True)) == pytest.approx(1.0, abs=0.03)
    # vp is exactly normal: |x|^2 varies as chi-square does, 2/d; slerp's middle varies half as much
    spread = lambda x: float(x.double().square().mean(1).var())  # noqa: E731
    assert spread(vp_lerp(a, b, 0.5, batched=True)) == pytest.approx(2 / 768, rel=0.5)
    assert spread(slerp(a, b, 0.5, batched=True)) == pytest.approx(1 / 768, rel=0.5)


def test_each_image_of_a_batch_has_its_own_angle():
    a, b = noise([0, 1], (1, 4, 4)), noise([2, 3], (1, 4, 4))
    b[1] = a[1] + 0.3 * b[1]  # a small angle beside a large one
    both = slerp(a, b, U)
    assert both.shape == (9, 2, 1, 4, 4)
    for i in range(2):
        torch.testing.assert_close(both[:, i], slerp(a[i], b[i], U))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identical_and_nearly_identical_items_give_no_nan(dtype):
    """In float32 the cosine of identical vectors exceeds 1 for a quarter of them: acos would be NaN."""
    a = noise(range(200), (1, 8, 8), dtype=dtype)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    for tiny in (1e-7, 1e-5, 1e-3):
        near = a + tiny * noise(range(200, 400), (1, 8, 8), dtype=dtype)
        torch.testing.assert_close(slerp(a, near, 0.5), (a + near) / 2, rtol=1e-5, atol=1e-5)


def test_what_has_no_arc_is_refused():
    a, b = pair()
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -2 * a, 0.5)
    with pytest.raises(ValueError, match="zero"):
        slerp(a, torch.zeros_like(a), 0.5)
    with pytest.raises(ValueError, match="one shape"):
        slerp(a, b[:1], 0.5)
    with pytest.raises(ValueError, match="slerp, vp, linear"):
        rule_named("cubic")


def test_a_path_through_three_points_meets_each():
    a, b, c = noise([0, 1, 2], (2, 4, 4), dtype=torch.float64)
    frames = path([a, b, c], 9)
    assert frames.shape == (9, 2, 4, 4)
    for i, point in ((0, a), (4, b), (8, c)):
        torch.testing.assert_close(frames[i], point)
    torch.testing.assert_close(frames[2], slerp(a, b, 0.5))
    with pytest.raises(ValueError, match="2 points"):
        path([a], 5)


def test_a_grid_is_a_slerp_of_slerps():
    corners = list(noise([0, 1, 2, 3], (2, 4, 4), dtype=torch.float64))
    square = path_grid(corners, 3, 5)
    assert square.shape == (3, 5, 2, 4, 4)
    for (i, j), corner in zip([(0, 0), (0, 4), (2, 0), (2, 4)], corners, strict=True):
        torch.testing.assert_close(square[i, j], corner)
    middle = slerp(slerp(corners[0], corners[2], 0.5), slerp(corners[1], corners[3], 0.5), 0.5)
    torch.testing.assert_close(square[1, 2], middle)
    with pytest.raises(ValueError, match="4 corners"):
        path_grid(corners[:3], 3, 3)


def test_ddpm_interpolation_shares_its_noise_among_frames_and_is_not_the_image_at_its_ends():
    oracle = GaussianDenoiser(SCHEDULE, 0.0, 0.25)
    a, b = noise([0, 1], (1, 4, 4), dtype=torch.float64) * 0.5
    times = tuple(t for t in tau(1000, 20) if t <= 500)
    first = ddpm_interpolation(oracle, a, b, U, times, seed=0)
    assert torch.equal(first, ddpm_interpolation(oracle, a, b, U, times, seed=0))
    assert not torch.equal(first, ddpm_interpolation(oracle, a, b, U, times, seed=1))
    # every step is affine and the noise is shared, so frames lie on the straight line between the end frames
    torch.testing.assert_close(first[4], (first[0] + first[8]) / 2)
    assert float((first[0] - a).abs().max()) > 0.1


def test_slerp_of_latents_is_what_the_model_samples_from():
    oracle = GaussianDenoiser(SCHEDULE, 0.1, 0.25)
    z = noise([0, 1], (1, 4, 4))
    frames = sample(oracle, slerp(z[0], z[1], U), tau(1000, 10), solver=DDIM())
    torch.testing.assert_close(frames[0], sample(oracle, z[:1], tau(1000, 10))[0])
