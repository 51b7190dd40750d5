"""The family keeps its marginals: if x_t | x0 ~ N(signal_t x0, noise_t^2), so is x_s | x0, for every legal sigma."""

from itertools import pairwise

import pytest
import torch

from ddim import DDIM, Denoiser, Schedule, noise, sample, tau, trajectory
from ddim.denoise import NONE
from ddim.process import Prediction, generator

X0 = torch.tensor([0.7, -0.2], dtype=torch.float64)


class Knows(Denoiser):
    """The network that knows the image: eps = (x - signal x0) / noise."""

    invertible = True

    def __init__(self, schedule):
        self.process = schedule

    def __call__(self, x_t, t, conditions=NONE):
        level = self.process.at(t)
        return Prediction(X0.expand_as(x_t), (x_t - level.signal * X0) / level.noise)


def random_legal_sigmas(schedule, times):
    draw = generator(0, "test-sigmas")
    return {t: float(draw.uniform()) * schedule.at(s).noise for t, s in pairwise(times)}


@pytest.mark.parametrize("make", [Schedule.linear, Schedule.cosine])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "trailing"])
@pytest.mark.parametrize("sigmas", [0.0, 0.5, 1.0, "random"])
def test_variance_about_x0_is_that_of_every_level(make, spacing, sigmas):
    """Exactly, by pulses: the weight of x_T's noise and of every z, squared and summed, is noise_s^2."""
    schedule = make(1000)
    times = tau(1000, 12, spacing)
    solver = DDIM(sigma=random_legal_sigmas(schedule, times)) if sigmas == "random" else DDIM(sigmas)
    n = len(times)  # row 0: x_T's own noise; row i: the noise of step i; the last row: nothing
    start = schedule.at(times[0]).signal * X0.expand(n + 1, 2).clone()
    start[0] += schedule.at(times[0]).noise
    position = {t: 1 + i for i, t in enumerate(times[:-1])}

    def pulse(t):
        z = torch.zeros_like(start)
        z[position[t]] = 1.0
        return z

    for s, state in zip(times[1:], trajectory(Knows(schedule), solver, times, start, pulse), strict=True):
        level = schedule.at(s)
        torch.testing.assert_close(state.x[-1], level.signal * X0, rtol=1e-9, atol=1e-12)
        variance = (state.x[:-1] - state.x[-1]).square().sum(0)
        torch.testing.assert_close(variance, torch.full_like(variance, level.noise**2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 10, 333, 1000])
def test_who_knows_the_image_returns_it_whatever_the_steps(steps):
    schedule = Schedule.linear()
    x_T = noise([0, 1, 2], (2,), dtype=torch.float64)
    out = sample(Knows(schedule), x_T, tau(1000, steps))
    torch.testing.assert_close(out, X0.expand(3, 2), rtol=1e-11, atol=1e-11)


def test_sigma_hat_does_not_keep_the_marginals():
    """Its excess variance over a step is beta^2 alpha_bar_s / (1 - alpha_bar_t), sigma_hat^2 - sigma(1)^2."""
    schedule, times = Schedule.linear(), (1000, 500, 0)
    start = schedule.at(1000).signal * X0.expand(3, 2).clone()
    start[0] += schedule.at(1000).noise
    rows = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    solver = DDIM(sigma="hat")
    state = next(iter(trajectory(Knows(schedule), solver, times, start, lambda t: rows.expand(3, 2))))
    variance = (state.x[:2] - state.x[2]).square().sum(0)
    a_t, a_s = float(schedule.alpha_bar[1000]), float(schedule.alpha_bar[500])
    excess = (1 - a_t / a_s) ** 2 * a_s / (1 - a_t)
    torch.testing.assert_close(variance, torch.full_like(variance, 1 - a_s + excess), rtol=1e-9, atol=0)
