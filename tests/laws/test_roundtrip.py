"""Encoding on Gaussian data, where every map is known: docs/theory.md (3) and (8).

With phi = arctan(sqrt((1-a)/a)/sqrt(lambda)) a DDIM step multiplies by K_inf cos(dphi): down, naive up and exact up
all have closed forms, on any grid.
"""

import math
from itertools import pairwise

import pytest
import torch

from ddim import GaussianDenoiser, MixtureDenoiser, Schedule, noise, sample, tau
from ddim.uses import decode, encode, law

SCHEDULE = Schedule.linear(1000)


def angles(times, variance):
    """phi at each time."""
    return [math.atan2(SCHEDULE.at(t).noise, SCHEDULE.at(t).signal * math.sqrt(variance)) for t in times]


def cosines(times, variance):
    return math.prod(math.cos(a - b) for a, b in pairwise(angles(times, variance)))


def flow_gain(times, variance):
    """K_inf: the exact probability flow's x_0/x_T."""
    at = SCHEDULE.at(times[0])
    return math.sqrt(variance / (at.signal**2 * variance + at.noise**2))


def data(n=4, d=6):
    return torch.linspace(-2, 2, n * d, dtype=torch.float64).view(n, d) + 0.01


@pytest.mark.parametrize(
    ("steps", "published"),
    [(10, 0.5474), (20, 0.7443), (50, 0.8889), (100, 0.9426), (200, 0.9707), (500, 0.9881), (1000, 0.9940)],
)
def test_naive_round_trip_is_the_product_of_squared_cosines(steps, published):
    oracle, times = GaussianDenoiser(SCHEDULE, 0.0, 0.25), tau(1000, steps, "paper-linear")
    z = encode(oracle, data(), times, "naive")
    ratio = decode(oracle, z) / data()
    torch.testing.assert_close(ratio, torch.full_like(ratio, cosines(times, 0.25) ** 2), rtol=1e-11, atol=0)
    assert float(ratio.mean()) == pytest.approx(published, abs=6e-5)


@pytest.mark.parametrize("variance", [0.05, 0.25, 1.0, 4.0])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "paper-linear"])
def test_the_latent_of_both_methods_has_its_closed_form(variance, spacing):
    """Naive latents are too small by the product of cosines, exact ones too large by it: DDIM itself shrinks."""
    oracle, times = GaussianDenoiser(SCHEDULE, 0.0, variance), tau(1000, 20, spacing)
    gain, shrink = flow_gain(times, variance), cosines(times, variance)
    naive = encode(oracle, data(), times, "naive").x_T / data()
    exact = encode(oracle, data(), times, "implicit").x_T / data()
    torch.testing.assert_close(naive, torch.full_like(naive, shrink / gain), rtol=1e-11, atol=0)
    torch.testing.assert_close(exact, torch.full_like(exact, 1 / (shrink * gain)), rtol=1e-6, atol=0)


def test_naive_error_falls_as_one_over_s_with_the_predicted_constant():
    """S (1 - x_rec/x_0) tends to S sum dphi^2, the integral of phi'(u)^2, on the grid that is smooth in u."""
    oracle, found = GaussianDenoiser(SCHEDULE, 0.0, 0.25), {}
    for steps in (25, 50, 100, 200):
        times = tau(1000, steps, "quadratic")
        error = float((1 - decode(oracle, encode(oracle, data(), times, "naive")) / data()).mean())
        constant = sum((a - b) ** 2 for a, b in pairwise(angles(times, 0.25)))
        assert error == pytest.approx(constant, rel=1.2 * constant)  # the next order is constant^2/2 and smaller
        found[steps] = error
    for few, many in [(25, 50), (50, 100), (100, 200)]:
        slope = math.log(found[many] / found[few]) / math.log(many / few)
        assert -1.05 < slope < -0.85


@pytest.mark.parametrize("method", ["implicit", "exact", "bdia"])
@pytest.mark.parametrize("steps", [5, 20, 100])
def test_exact_methods_return_the_image(method, steps):
    oracle, times = GaussianDenoiser(SCHEDULE, 0.1, 0.25), tau(1000, steps)
    z = encode(oracle, data(), times, method)
    torch.testing.assert_close(decode(oracle, z), data(), rtol=0, atol=1e-7)
    assert float(z.certificate.psnr.min()) > 140


@pytest.mark.parametrize("method", ["implicit", "exact"])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic"])
def test_encode_of_sample_is_the_latent(method, spacing):
    """Gaussian in a rotated basis; and a mixture, on enough steps for the solve to be unique."""
    q, _ = torch.linalg.qr(torch.arange(1.0, 37.0, dtype=torch.float64).view(6, 6).sin())
    covariance = q @ torch.diag(torch.tensor([0.02, 0.1, 0.3, 0.8, 1.5, 3.0], dtype=torch.float64)) @ q.T
    x_T = noise(range(8), (6,), dtype=torch.float64)
    for denoise, steps in [
        (GaussianDenoiser(SCHEDULE, torch.linspace(-1, 1, 6), (covariance + covariance.T) / 2), 20),
        (MixtureDenoiser(SCHEDULE, [1.0, 2.0], [-0.6, 0.5], 0.05), 100),
    ]:
        times = tau(1000, steps, spacing)
        z = encode(denoise, sample(denoise, x_T, times), times, method)
        torch.testing.assert_close(z.x_T, x_T, rtol=0, atol=1e-5)
        assert z.unsolved == ()


def test_the_law_of_exact_latents_of_generated_images_is_standard_normal():
    """And naive latents of the same images fail it: variance (prod cos)^4 below 1, though pictures look right."""
    oracle, times = GaussianDenoiser(SCHEDULE, 0.0, 0.25), tau(1000, 20)
    x_T = noise(range(40), (1, 16, 16), dtype=torch.float64)
    x_0 = sample(oracle, x_T, times)
    exact, naive = (law(encode(oracle, x_0, times, m).x_T) for m in ("implicit", "naive"))
    assert max(map(abs, exact.deviations().values())) < 4
    assert naive.variance == pytest.approx(cosines(times, 0.25) ** 4 * law(x_T).variance, rel=1e-9)
    assert abs(naive.deviations()["variance"]) > 20


def test_law_numbers_on_known_input():
    z = torch.tensor([[[1.0, -1.0], [1.0, -1.0]]])[None].double()
    found = law(z)
    assert (found.mean, found.variance, found.norm, found.kurtosis) == (0.0, 1.0, 1.0, -2.0)
    assert found.correlation == 0.0  # two pairs across are -1, two pairs down +1
    uniform = law(torch.linspace(-1, 1, 100001, dtype=torch.float64)[None])
    assert uniform.kurtosis == pytest.approx(-1.2, abs=1e-3)
    assert uniform.variance == pytest.approx(1 / 3, abs=1e-4)
    with pytest.raises(ValueError, match="no latents"):
        law(torch.empty(0, 3))


@pytest.mark.parametrize("steps", [10, 50, 200, 1000])
def test_the_coupled_scheme_keeps_rounding_within_its_growth(steps):
    """docs/theory.md, inversion: EDICT has lost float32 by S = 200; here a disturbance grows a hundredfold at most."""
    from ddim.solve import Coupled, Older, end_of, gamma_for, trajectory
    from ddim.solve.coupled import GROWTH

    assert gamma_for(steps) ** steps == pytest.approx(GROWTH, rel=1e-9)
    oracle, times = GaussianDenoiser(SCHEDULE, 0.0, 0.25), tau(1000, steps)
    z = encode(oracle, data(), times, "bdia")

    def down(states):
        older = Older(times[0], states[:, 0])
        return end_of(trajectory(oracle, Coupled(gamma_for(steps)), times[1:], states[:, 1], carry=older))

    nudge = torch.zeros_like(z.states)
    nudge[:, 0] = 1e-6
    grown = (down(z.states + nudge) - down(z.states)).abs().max() / 1e-6
    assert float(grown) < 2 * GROWTH
    torch.testing.assert_close(down(z.states.float()), data().float(), rtol=0, atol=1e-3)  # all in float32


def test_the_coupled_latent_draws_near_the_flow_as_steps_grow():
    oracle, errors = GaussianDenoiser(SCHEDULE, 0.0, 0.25), []
    for steps in (20, 80, 320):
        x_T = encode(oracle, data(), tau(1000, steps, "quadratic"), "bdia").x_T
        errors.append(float((x_T / data() * flow_gain((1000, 0), 0.25) - 1).abs().max()))
    assert errors[0] < 0.3
    assert errors[2] < errors[1] / 2 < errors[0] / 4
