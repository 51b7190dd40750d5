"""Lengths and powers of averages, their inner products, and the nearest combination: closed forms and quadrature."""

import math

import numpy as np
import pytest
from scipy import integrate

from ddim.nets import LONGEST, combination, gamma_of, inner, length_of
from ddim.refused import Refused


def profile(t, gamma):
    return lambda tau: (gamma + 1) * tau**gamma / t ** (gamma + 1)


def test_the_papers_two_lengths_have_the_papers_powers():
    """EDM2, section 3.1: sigma_rel 0.05 and 0.10 are gamma 16.97 and 6.94."""
    assert gamma_of(0.05) == pytest.approx(16.97, abs=5e-3) and gamma_of(0.10) == pytest.approx(6.94, abs=5e-3)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 6.94, 50.0, 4000.0])
def test_the_length_is_the_standard_deviation_of_the_weights_over_time(gamma):
    """Of the density (g + 1) x^g on [0, 1], a beta law with the parameters g + 1 and 1."""
    a = gamma + 1
    assert length_of(gamma) == pytest.approx(math.sqrt(a / ((a + 1) ** 2 * (a + 2))), rel=1e-12)
    assert gamma_of(length_of(gamma)) == pytest.approx(gamma, rel=1e-9, abs=1e-6)


def test_the_longest_average_is_the_plain_mean():
    assert gamma_of(LONGEST) == pytest.approx(0.0, abs=1e-7) and length_of(0.0) == pytest.approx(1 / math.sqrt(12))


@pytest.mark.parametrize("length", [0.0, -0.1, 0.2887, 0.3, math.nan, math.inf])
def test_other_lengths_are_no_averages(length):
    with pytest.raises(Refused, match=r"above 0 and at most 0\.289"):
        gamma_of(length)


@pytest.mark.parametrize(
    ("t", "gamma", "s", "delta"), [(3.0, 0.0, 5.0, 2.5), (5.0, 2.5, 3.0, 0.0), (4.0, 7.0, 4.0, 1.0)]
)
def test_inner_products_are_the_integrals(t, gamma, s, delta):
    p, q = profile(t, gamma), profile(s, delta)
    expected, _ = integrate.quad(lambda tau: p(tau) * q(tau), 0, min(t, s))
    assert float(inner(t, gamma, s, delta)) == pytest.approx(expected, rel=1e-10)


def test_two_plain_means_have_the_inner_product_of_two_boxes():
    assert float(inner(3.0, 0.0, 8.0, 0.0)) == pytest.approx(1 / 8)
    assert inner([[3.0], [8.0]], 0.0, [3.0, 8.0], 0.0) == pytest.approx(np.array([[1 / 3, 1 / 8], [1 / 8, 1 / 8]]))


KEPT = [(float(t), gamma_of(length)) for t in range(50, 1001, 50) for length in (0.05, 0.10)]


def test_an_average_that_was_kept_is_itself():
    found, left = combination(KEPT, 1000.0, gamma_of(0.10))
    assert found == pytest.approx(np.eye(len(KEPT))[-1], abs=1e-9) and left < 1e-6


@pytest.mark.parametrize("length", [0.03, 0.07, 0.15, 0.25])
def test_the_coefficients_sum_to_one_and_what_is_left_over_is_measured(length):
    """By quadrature of the squared difference of the weights themselves."""
    found, left = combination(KEPT, 1000.0, gamma_of(length))
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    tau = (np.arange(200_000) + 0.5) / 200
    wanted = profile(1000.0, gamma_of(length))(tau)
    made = sum(x * np.where(tau <= t, profile(t, g)(tau), 0.0) for x, (t, g) in zip(found, KEPT, strict=True))
    assert left == pytest.approx(math.sqrt(np.square(wanted - made).mean() / np.square(wanted).mean()), rel=1e-3)


def test_no_combination_of_the_same_sum_is_nearer():
    found, left = combination(KEPT, 1000.0, gamma_of(0.15))
    times, powers = np.array(KEPT).T
    among, wanted = inner(times[:, None], powers[:, None], times, powers), inner(times, powers, 1000.0, gamma_of(0.15))
    own = float(inner(1000.0, gamma_of(0.15), 1000.0, gamma_of(0.15)))
    for seed in range(5):
        aside = np.random.default_rng(seed).standard_normal(len(KEPT)) * 1e-3
        other = found + aside - aside.mean()
        assert math.sqrt((own - 2 * other @ wanted + other @ among @ other) / own) > left
