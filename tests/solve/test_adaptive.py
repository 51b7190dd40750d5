"""The flow with error control: Gaussian maps in closed form, a mixture against SciPy, the tolerance kept."""

import math

import pytest
import torch
from scipy import integrate

import ddim
from ddim.denoise import Guided, NetworkDenoiser
from ddim.process import edm, flow, subvp, ve, vp
from ddim.solve import Adaptive, trajectory

MEAN, VARIANCE = 0.3, torch.tensor([0.05, 0.25, 4.0], dtype=torch.float64)
SCHEDULE = ddim.Schedule.linear(1000)


def moved(process, x, t, s):
    """The flow of Gaussian data: (x - signal mean) grows with sqrt(signal^2 variance + noise^2) (docs/theory.md)."""
    spread = [(at.signal**2 * VARIANCE + at.noise**2).sqrt() for at in (process.at(t), process.at(s))]
    return process.at(s).signal * MEAN + (x - process.at(t).signal * MEAN) * spread[1] / spread[0]


@pytest.mark.parametrize("process", [vp(), subvp(), ve(), edm(), flow()], ids=lambda p: p.name)
def test_gaussians_go_where_the_flow_takes_them_and_back(process):
    oracle, t, s = ddim.GaussianDenoiser(process, MEAN, VARIANCE), process.T, process.first
    x = process.start(t) * ddim.noise(range(3), (3,), dtype=torch.float64)
    errors = []
    for tolerance in (1e-4, 1e-7):
        y = ddim.sample(oracle, x, (t, s), solver=Adaptive(tolerance))
        errors.append(float((y - moved(process, x, t, s)).abs().max()))
        assert errors[-1] <= 100 * tolerance
    assert errors[1] < errors[0] / 50
    back = ddim.sample(oracle, y, (s, t), solver=Adaptive(1e-7))
    torch.testing.assert_close(back / process.start(t), x / process.start(t), rtol=0, atol=1e-4)


def test_a_schedule_is_walked_between_its_whole_times():
    oracle = ddim.GaussianDenoiser(SCHEDULE, MEAN, VARIANCE)
    x = ddim.noise(range(3), (3,), dtype=torch.float64)
    found = ddim.sample(oracle, x, (1000, 1), solver=Adaptive())
    torch.testing.assert_close(found, moved(SCHEDULE, x, 1000, 1), rtol=0, atol=1e-3)
    many = ddim.sample(oracle, x, ddim.tau(1000, 1000))  # what DDIM tends to, to the clean image
    assert float((ddim.sample(oracle, x, (1000, 0), solver=Adaptive()) - many).abs().max()) < 2e-2


def test_a_mixture_is_scipys():
    process = flow()
    oracle = ddim.MixtureDenoiser(process, [1.0, 2.0], [-0.6, 0.5], 0.02)
    x = torch.tensor([[-1.3], [0.1], [0.9]], dtype=torch.float64)

    def velocity(t, x):
        p = oracle(torch.from_numpy(x)[:, None], t)
        return (p.eps - p.x0)[:, 0].numpy()

    right = integrate.solve_ivp(velocity, (1.0, 0.01), x[:, 0].numpy(), "DOP853", rtol=1e-11, atol=1e-11).y[:, -1]
    found = ddim.sample(oracle, x, (1.0, 0.01), solver=Adaptive(1e-8))
    torch.testing.assert_close(found[:, 0], torch.from_numpy(right), rtol=0, atol=1e-6)


def test_steps_say_what_they_took_and_items_stand_alone():
    rows = []

    class Net(torch.nn.Module):
        def forward(self, x, t, label):
            rows.append(len(x))
            return torch.sin(2 * x) * label.view(-1, 1)

    denoise = NetworkDenoiser(Net(), flow(), "velocity")
    x, told = ddim.noise(range(3), (4,)), ddim.denoise.labels(torch.tensor([0, 1, 3]))
    steps = list(trajectory(denoise, Adaptive(1e-4), (1.0, 0.4, 0.0), x, conditions=told))
    assert [step.x.dtype for step in steps] == [torch.float32] * 2
    assert sum(step.calls for step in steps) == len(rows) and min(rows) < 3  # images drop out as they arrive
    p, at = steps[0].prediction, flow().at(1.0)
    torch.testing.assert_close(at.signal * p.x0 + at.noise * p.eps, x, rtol=0, atol=1e-5)
    alone = ddim.sample(denoise, x[2:], (1.0, 0.4, 0.0), solver=Adaptive(1e-4), label=torch.tensor([3]))
    torch.testing.assert_close(alone[0], steps[-1].x[2], rtol=0, atol=1e-6)
    guided = Guided(NetworkDenoiser(Net(), SCHEDULE, "v"), 2.0, 5, interval=(100, 900))
    x = ddim.sample(guided, ddim.noise([0], (4,)), (1000, 0), solver=Adaptive(1e-2), label=torch.tensor([1]))
    assert bool(x.isfinite().all())


@pytest.mark.parametrize("tolerance", [0.0, 1.0, math.nan])
def test_a_tolerance_outside_is_refused(tolerance):
    with pytest.raises(ddim.Refused, match="between 0 and 1"):
        Adaptive(tolerance)
