"""The DDIM step against DDPM's posterior, the paper's formulas and its bounds."""

from math import sqrt

import pytest
import torch

from ddim import Schedule, noise, tau
from ddim.process import Prediction, ddim_step, eta_max, fixedlarge_step, sigma

SCHEDULE = Schedule.linear()
STEPS = [(1000, 999), (1000, 889), (500, 1), (37, 12), (2, 1)]
X0, EPS, Z = (noise([i], (6,), dtype=torch.float64) for i in range(3))


def posterior(a_t, a_s):
    """DDPM eq. 6-7 with the sub-sequence's own beta: weights of x0 and x_t, and the variance."""
    beta = 1 - a_t / a_s
    return sqrt(a_s) * beta / (1 - a_t), sqrt(a_t / a_s) * (1 - a_s) / (1 - a_t), (1 - a_s) / (1 - a_t) * beta


@pytest.mark.parametrize(("t", "s"), [*STEPS, (1, 0), (20, 0)])
def test_eta_1_is_the_ddpm_posterior(t, s):
    at_t, at_s = SCHEDULE.at(t), SCHEDULE.at(s)
    on_x0, on_x_t, variance = posterior(float(SCHEDULE.alpha_bar[t]), float(SCHEDULE.alpha_bar[s]))
    assert sigma(at_t, at_s, 1.0) ** 2 == pytest.approx(variance, rel=1e-9, abs=1e-18)
    x_t = at_t.signal * X0 + at_t.noise * EPS
    x_s = ddim_step(Prediction(X0, EPS), at_t, at_s, eta=1.0, z=Z)
    torch.testing.assert_close(x_s, on_x0 * X0 + on_x_t * x_t + sqrt(variance) * Z, rtol=1e-9, atol=1e-11)


def test_eta_1_on_the_full_tau_is_beta_tilde_of_ddpm():
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)  # Ho et al.'s own table
    alpha_bar = torch.cumprod(1 - betas, 0)
    for t in (2, 10, 500, 1000):
        beta_tilde = (1 - alpha_bar[t - 2]) / (1 - alpha_bar[t - 1]) * betas[t - 1]
        assert sigma(SCHEDULE.at(t), SCHEDULE.at(t - 1), 1.0) ** 2 == pytest.approx(float(beta_tilde), rel=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("t", "s"), STEPS)
def test_sigma_is_eta_times_ddpms_and_uses_the_beta_of_the_step(eta, t, s):
    _, _, variance = posterior(float(SCHEDULE.alpha_bar[t]), float(SCHEDULE.alpha_bar[s]))
    assert sigma(SCHEDULE.at(t), SCHEDULE.at(s), eta) == pytest.approx(eta * sqrt(variance), rel=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("t", "s"), STEPS)
def test_the_marginal_is_kept(eta, t, s):
    """The noise on x0 has variance 1 - alpha_bar_s: direction^2 + sigma^2 (DDIM lemma 1)."""
    at_t, at_s = SCHEDULE.at(t), SCHEDULE.at(s)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    on_x0 = ddim_step(Prediction(one, zero), at_t, at_s, eta=eta, z=zero)
    on_eps = ddim_step(Prediction(zero, one), at_t, at_s, eta=eta, z=zero)
    on_z = ddim_step(Prediction(zero, zero), at_t, at_s, eta=eta, z=one)
    a_s = float(SCHEDULE.alpha_bar[s])
    assert float(on_x0) == pytest.approx(sqrt(a_s), rel=1e-12)
    assert float(on_eps**2 + on_z**2) == pytest.approx(1 - a_s, rel=1e-12)


def test_the_last_step_is_x0_without_noise_for_every_eta():
    for eta in (0.0, 0.5, 1.0, 7.0):
        x_s = ddim_step(Prediction(X0, EPS), SCHEDULE.at(1), SCHEDULE.at(0), eta=eta, z=None)
        assert torch.equal(x_s, X0)


def test_eta_up_to_its_maximum_and_not_beyond():
    for t, s in STEPS:
        at_t, at_s = SCHEDULE.at(t), SCHEDULE.at(s)
        a_t, a_s = at_t.alpha_bar, at_s.alpha_bar
        largest = eta_max(at_t, at_s)
        assert largest == pytest.approx(sqrt((1 - a_t) / (1 - a_t / a_s)), rel=1e-9) and largest >= 1
        full = ddim_step(Prediction(torch.zeros(1), torch.ones(1)), at_t, at_s, eta=largest, z=torch.zeros(1))
        assert float(full) == pytest.approx(0.0, abs=1e-5)  # the direction to x_t is gone: full re-noising
        with pytest.raises(ValueError, match="sqrt"):
            ddim_step(Prediction(X0, EPS), at_t, at_s, eta=largest * 1.001, z=Z)
    assert eta_max(SCHEDULE.at(1), SCHEDULE.at(0)) == float("inf")


def test_too_large_a_sigma_names_both_numbers():
    at_t, at_s = SCHEDULE.at(500), SCHEDULE.at(250)
    with pytest.raises(ValueError, match=rf"0\.95.*{at_s.noise:.6g}"):
        ddim_step(Prediction(X0, EPS), at_t, at_s, std=0.95, z=Z)
    ddim_step(Prediction(X0, EPS), at_t, at_s, std=at_s.noise, z=Z)


def test_zero_terminal_snr_with_eta_1_meets_the_bound_without_nan():
    schedule = Schedule.linear().zero_terminal_snr()
    for steps in (2, 10, 50, 1000):
        times = tau(1000, steps, "trailing")
        x_s = ddim_step(Prediction(X0, EPS), schedule.at(times[0]), schedule.at(times[1]), eta=1.0, z=Z)
        assert bool(torch.isfinite(x_s).all())


def test_sigma_hat_has_the_papers_d3_coefficients():
    for t, s in [*STEPS, (1, 0)]:
        a_t, a_s = float(SCHEDULE.alpha_bar[t]), float(SCHEDULE.alpha_bar[s])
        _, _, variance = posterior(a_t, a_s)
        x_s = fixedlarge_step(Prediction(X0, EPS), SCHEDULE.at(t), SCHEDULE.at(s), z=Z)
        by_hand = sqrt(a_s) * X0 + sqrt(max(1 - a_s - variance, 0)) * EPS + sqrt(1 - a_t / a_s) * Z
        torch.testing.assert_close(x_s, by_hand, rtol=1e-9, atol=1e-9)


def test_inversion_is_the_same_formula_upwards_and_takes_no_noise():
    at_t, at_s = SCHEDULE.at(100), SCHEDULE.at(300)
    torch.testing.assert_close(ddim_step(Prediction(X0, EPS), at_t, at_s), at_s.signal * X0 + at_s.noise * EPS)
    with pytest.raises(ValueError, match="eta = 0 to encode"):
        ddim_step(Prediction(X0, EPS), at_t, at_s, eta=0.5, z=Z)


@pytest.mark.parametrize("eta", [-0.1, float("nan")])
def test_negative_eta_is_refused(eta):
    with pytest.raises(ValueError, match="at least 0"):
        sigma(SCHEDULE.at(5), SCHEDULE.at(2), eta)


def test_missing_noise_is_refused():
    with pytest.raises(ValueError, match="give z"):
        ddim_step(Prediction(X0, EPS), SCHEDULE.at(5), SCHEDULE.at(2), eta=0.5)
