"""Samplers on Gaussian data against closed forms: 144 published cases, and the identity of the cosines.

docs/theory.md (1) to (3): on N(mu, lambda) every step is affine, so mean and variance of what a sampler makes are
known exactly. The affine map of a real run is read off by pushing 0 and 1 through it, the noise by unit pulses.
"""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, Schedule, tau, trajectory
from ddim.solve import sample

FIXTURES = json.loads((Path(__file__).parent.parent / "data" / "gaussian.json").read_text())
NAMES = {"ermon_uniform": "ermongroup-uniform", "paper_linear": "paper-linear", "linspace_1_T": "linspace"}
SCHEDULE = Schedule.linear(1000)


def run(denoise, solver, times, x, pulse_at=None):
    """x_0 from the number x, with unit noise at the step that starts at `pulse_at` and none elsewhere."""
    start = torch.tensor([[x]], dtype=torch.float64)
    walk = trajectory(denoise, solver, times, start, lambda t: torch.full_like(start, float(t == pulse_at)))
    return float(list(walk)[-1].x)


def law(denoise, solver, times):
    """Mean and variance of x_0 from x_T ~ N(0, 1), as the run itself makes them."""
    origin = run(denoise, solver, times, 0.0)
    gain = run(denoise, solver, times, 1.0) - origin
    pulses = [run(denoise, solver, times, 0.0, t) - origin for t in times[:-1]] if solver.stochastic else []
    return origin, gain**2 + sum(p**2 for p in pulses), gain


def quick_law(denoise, solver, times):
    """The same in one pass: all pulses side by side in one batch (each image has its own noise)."""
    n = len(times) - 1
    start = torch.zeros(n + 2, 1, dtype=torch.float64)
    start[1] = 1.0
    position = {t: i for i, t in enumerate(times[:-1])}

    def pulse(t):
        z = torch.zeros_like(start)
        z[2 + position[t]] = 1.0
        return z

    x = list(trajectory(denoise, solver, times, start, pulse))[-1].x.flatten()
    gain = float(x[1] - x[0])
    noise = float((x[2:] - x[0]).square().sum()) if solver.stochastic else 0.0
    return float(x[0]), gain**2 + noise, gain


def test_the_two_ways_to_read_a_law_agree():
    denoise, times = GaussianDenoiser(SCHEDULE, 0.3, 0.25), tau(1000, 6)
    for solver in (DDIM(), DDIM(0.5), DDIM(sigma="hat-unmasked")):
        assert law(denoise, solver, times) == pytest.approx(quick_law(denoise, solver, times), rel=1e-12)


@pytest.mark.parametrize("case", FIXTURES["gaussian"], ids=lambda c: f"{c['tau']}-{c['S']}-{c['lam']}-{c['eta']}")
def test_published_case(case):
    assert case["x_T"] == "N(0,1)"
    denoise = GaussianDenoiser(SCHEDULE, case["mu"], case["lam"])
    solver = DDIM(sigma="hat-unmasked") if case["eta"] == "hat_unmasked" else DDIM(case["eta"])
    times = tau(1000, case["S"], NAMES[case["tau"]])
    mean, variance, gain = quick_law(denoise, solver, times)
    assert mean == pytest.approx(case["mean"], rel=1e-9)
    assert variance == pytest.approx(case["var"], rel=1e-9)
    if "K" in case:
        assert gain == pytest.approx(case["K"], rel=1e-9)
        x = torch.ones(1, 1, dtype=torch.float64)
        flow = denoise.flow(x, times[0], 0) - denoise.flow(0 * x, times[0], 0)
        assert float(flow) == pytest.approx(case["K_ode"], rel=1e-9)
    if "inversion_roundtrip_label_current" in case:
        zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        back = [sample(denoise, sample(denoise, x, times[::-1]), times) for x in (zero, one)]
        assert float(back[1] - back[0]) == pytest.approx(case["inversion_roundtrip_label_current"], rel=1e-9)


@pytest.mark.parametrize("variance", [0.05, 0.25, 1.0, 4.0])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "logsnr", "trailing"])
@pytest.mark.parametrize("make", [Schedule.linear, Schedule.cosine, Schedule.scaled_linear])
def test_telescoped_product_of_cosines(variance, spacing, make):
    """K_S = K_flow prod cos(phi_i+1 - phi_i), phi = arctan(noise / (signal sqrt(lambda))), on every grid."""
    schedule = make(1000)
    denoise = GaussianDenoiser(schedule, 0.0, variance)
    times = tau(1000, 17, spacing, alpha_bar=schedule.alpha_bar.tolist())
    phi = [math.atan2(schedule.at(t).noise, schedule.at(t).signal * math.sqrt(variance)) for t in times]
    product = math.prod(math.cos(a - b) for a, b in pairwise(phi))
    a_T = float(schedule.alpha_bar[times[0]])
    flow = math.sqrt(variance / (a_T * variance + 1 - a_T))
    one = torch.ones(1, 1, dtype=torch.float64)
    assert float(sample(denoise, one, times)) == pytest.approx(flow * product, rel=1e-9)


def test_full_covariance_acts_on_each_eigen_direction_alone():
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.9]], dtype=torch.float64)
    values, basis = torch.linalg.eigh(covariance)
    times = tau(1000, 9)
    out = sample(GaussianDenoiser(SCHEDULE, 0.0, covariance), basis.T.contiguous(), times)
    for i in range(2):
        alone = sample(GaussianDenoiser(SCHEDULE, 0.0, float(values[i])), torch.ones(1, 1, dtype=torch.float64), times)
        torch.testing.assert_close(out[i], float(alone) * basis[:, i])


def test_one_step_of_ddpm_variance_on_unit_data_with_sigma_hat():
    """sigma-hat is exact for lambda = 1: the generated variance is 1 for every S (docs/theory.md)."""
    denoise = GaussianDenoiser(SCHEDULE, 0.0, 1.0)
    for steps in (2, 10, 50):
        assert quick_law(denoise, DDIM(sigma="hat-unmasked"), tau(1000, steps))[1] == pytest.approx(1.0, rel=1e-9)


@pytest.mark.parametrize(
    ("eta", "ratios"),
    [(0.0, [0.27353, 0.54745, 0.68785, 0.73878]), (1.0, [0.24883, 0.44482, 0.54833, 0.59736])],
)
def test_table_of_variance_ratios_with_exact_start(eta, ratios):
    """docs/theory.md (2), paper-linear tau, S = 10, x_T from its exact marginal: v / lambda."""
    times = tau(1000, 10, "paper-linear")
    for variance, ratio in zip([0.05, 0.25, 1.0, 4.0], ratios, strict=True):
        _, total, gain = quick_law(GaussianDenoiser(SCHEDULE, 0.0, variance), DDIM(eta), times)
        a = float(SCHEDULE.alpha_bar[1000])
        exact_start = total + gain**2 * (a * variance + 1 - a - 1.0)
        assert exact_start / variance == pytest.approx(ratio, abs=6e-6)
