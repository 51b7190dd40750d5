"""What a network's output means on every process: six parameterisations, and EDM's as its paper writes it."""

import math

import pytest
import torch

from ddim import Schedule, noise
from ddim.process import PARAMETERISATIONS, edm, flow, parameterisation, subvp, ve, vp
from ddim.process.prediction import Edm

PROCESSES = {"ve": ve(), "edm": edm(), "flow": flow(), "vp": vp(), "subvp": subvp(), "schedule": Schedule.linear()}
X0, EPS = noise([0, 1], (3, 5), dtype=torch.float64), noise([2, 3], (3, 5), dtype=torch.float64)


def times_of(process):
    found = [process.first, 0.1 * process.T, 0.6 * process.T, 0.98 * process.T]
    return [round(t) for t in found] if process.discrete else found


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_decode_of_target_is_the_identity(process, name):
    p = parameterisation(name)
    for t in times_of(process):
        at = process.at(t)
        x_t = at.signal * X0 + at.noise * EPS
        pair = p.decode(p.target(X0, EPS, at), x_t, at)
        torch.testing.assert_close(pair.x0, X0, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(pair.eps, EPS, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_any_output_makes_a_consistent_pair(process, name):
    x_t, out = noise([7, 8], (3, 5), dtype=torch.float64), noise([9, 10], (3, 5), dtype=torch.float64)
    times = times_of(process)
    batch = process.at_batch(torch.tensor(times[1:3], dtype=torch.float64), x_t)
    for at in (*map(process.at, times), batch):
        pair = parameterisation(name).decode(out, x_t, at)
        torch.testing.assert_close(at.signal * pair.x0 + at.noise * pair.eps, x_t, rtol=1e-9, atol=1e-9)


def test_score_and_velocity_are_derivatives():
    """score: of log N(x_t; signal x0, noise^2). velocity: of x_t along t on the flow, by central differences."""
    at, h = vp().at(0.4), 1e-6
    x_t = (at.signal * X0 + at.noise * EPS).requires_grad_()
    (score,) = torch.autograd.grad((-0.5 * ((x_t - at.signal * X0) / at.noise) ** 2).sum(), x_t)
    torch.testing.assert_close(parameterisation("score").target(X0, EPS, at), score, rtol=1e-9, atol=1e-12)
    ahead, behind = (level.signal * X0 + level.noise * EPS for level in (flow().at(0.4 + h), flow().at(0.4 - h)))
    velocity = parameterisation("velocity").target(X0, EPS, flow().at(0.4))
    torch.testing.assert_close(velocity, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sd", [0.5, 1.3])
@pytest.mark.parametrize("sigma", [0.002, 0.5, 3.0, 80.0])
def test_edms_f_is_that_of_its_paper(sd, sigma):
    """D(x) = c_skip x + c_out F(c_in x) with the coefficients of arXiv 2206.00364, table 1; sd = 0.5 by default."""
    c_skip, c_out = sd**2 / (sigma**2 + sd**2), sigma * sd / math.sqrt(sigma**2 + sd**2)
    c_in = 1 / math.sqrt(sigma**2 + sd**2)
    p, at, x_t = Edm(sd), edm().at(sigma), X0 + sigma * EPS
    F = torch.tanh(p.feed(x_t, at))
    torch.testing.assert_close(p.feed(x_t, at), c_in * x_t)
    torch.testing.assert_close(p.decode(F, x_t, at).x0, c_skip * x_t + c_out * F)
    torch.testing.assert_close(p.target(X0, EPS, at), (X0 - c_skip * x_t) / c_out, rtol=1e-6, atol=1e-6)
    assert PARAMETERISATIONS["edm"].sd == 0.5


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_edm_shows_the_network_unit_variance_and_asks_it_for_the_same(process):
    """Data of standard deviation 0.5: both the input and the target have variance 1 at every level."""
    x0, eps = 0.5 * noise(range(400), (50,), dtype=torch.float64), noise(range(400, 800), (50,), dtype=torch.float64)
    for t in times_of(process):
        at, p = process.at(t), parameterisation("edm")
        for seen in (p.feed(at.signal * x0 + at.noise * eps, at), p.target(x0, eps, at)):
            assert float(seen.var()) == pytest.approx(1.0, abs=0.05)


def test_v_is_as_it_was_where_variance_is_preserved():
    """Bit for bit without the division: no time of the schedules in use is rounded past what counts as 1."""
    x_t, out = noise([7], (3, 5)), noise([9], (3, 5))
    for schedule in (Schedule.linear(), Schedule.cosine(), Schedule.linear().zero_terminal_snr()):
        times = torch.arange(1, 1001)
        levels = [schedule.at(int(t)) for t in times]
        batch = schedule.at_batch(times, x_t.expand(1000, 3, 5))
        for at in (*levels, batch):
            pair = parameterisation("v").decode(out, x_t, at)
            assert torch.equal(pair.x0, (at.signal * x_t - at.noise * out).expand_as(pair.x0))
            assert torch.equal(pair.eps, (at.signal * out + at.noise * x_t).expand_as(pair.eps))
