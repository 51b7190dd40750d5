import pytest
import torch

from ddim import Schedule, noise
from ddim.process import PARAMETERISATIONS, parameterisation, rederive

SCHEDULE = Schedule.linear()
X0, EPS = noise([0, 1], (3, 5), dtype=torch.float64), noise([2, 3], (3, 5), dtype=torch.float64)


def x_at(level):
    return level.signal * X0 + level.noise * EPS


@pytest.mark.parametrize("name", PARAMETERISATIONS)
@pytest.mark.parametrize("t", [1, 10, 500, 1000])
def test_decode_of_target_is_the_identity(name, t):
    p, level = parameterisation(name), SCHEDULE.at(t)
    pair = p.decode(p.target(X0, EPS, level), x_at(level), level)
    torch.testing.assert_close(pair.x0, X0, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pair.eps, EPS, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PARAMETERISATIONS)
def test_decode_of_any_output_is_consistent(name):
    """x_t == signal x0 + noise eps whatever the network says, also for a batch of times."""
    x_t, out = noise([7, 8], (3, 5), dtype=torch.float64), noise([9, 10], (3, 5), dtype=torch.float64)
    for level in (SCHEDULE.at(300), SCHEDULE.at_batch(torch.tensor([2, 900]), x_t)):
        pair = parameterisation(name).decode(out, x_t, level)
        torch.testing.assert_close(level.signal * pair.x0 + level.noise * pair.eps, x_t)


def test_targets_are_what_their_papers_say():
    level = SCHEDULE.at(400)
    assert torch.equal(parameterisation("eps").target(X0, EPS, level), EPS)
    assert torch.equal(parameterisation("x0").target(X0, EPS, level), X0)
    v = parameterisation("v").target(X0, EPS, level)
    # v is the velocity along the circle: d/dphi of cos(phi) x0 + sin(phi) eps, by central differences
    phi, h = torch.atan2(torch.tensor(level.noise), torch.tensor(level.signal)).double(), 1e-6
    ahead = torch.cos(phi + h) * X0 + torch.sin(phi + h) * EPS
    behind = torch.cos(phi - h) * X0 + torch.sin(phi - h) * EPS
    torch.testing.assert_close(v, (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-6)


def test_x0_and_v_survive_zero_terminal_snr():
    level = SCHEDULE.zero_terminal_snr().at(1000)
    assert level.signal == 0.0
    for name in ("x0", "v"):
        p = parameterisation(name)
        pair = p.decode(p.target(X0, EPS, level), x_at(level), level)
        torch.testing.assert_close(pair.x0, X0)
        torch.testing.assert_close(pair.eps, EPS)


def test_rederive_gives_the_consistent_eps():
    level = SCHEDULE.at(100)
    x_t = x_at(level)
    pair = rederive(X0.clamp(-0.1, 0.1), x_t, level)
    torch.testing.assert_close(level.signal * pair.x0 + level.noise * pair.eps, x_t)


def test_unknown_name():
    with pytest.raises(ValueError, match=r"'noise'.*eps, x0, v, score, velocity, edm"):
        parameterisation("noise")
