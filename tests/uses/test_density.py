"""Log-densities along the flow against closed forms: mixtures and Gaussians on every process, exact and estimated."""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy import integrate, stats

import ddim
from ddim.denoise import Autoguided, Bound, Clip, Guided, NetworkDenoiser, Stitched
from ddim.process import edm, flow, subvp, ve, vp
from ddim.solve import integrated
from ddim.uses import likelihood, walk_density
from ddim.uses.density import _student

CASES = json.loads((Path(__file__).parents[1] / "data/likelihood.json").read_text())
WIDE = {  # so much noise that N(0, start^2) is x_T's law to far below the bar
    "flow": flow(),
    "vp": vp(0.1, 60.0),
    "subvp": subvp(0.1, 60.0),
    "ve": ve(0.01, 1e6),
    "edm": edm(0.002, 1e6),
    "schedule": ddim.Schedule.linear(1000).zero_terminal_snr(),
}


def mixture(process, case):
    means = [torch.tensor(m, dtype=torch.float64) for m in case["means"]]
    return ddim.MixtureDenoiser(process, case["weights"], means, list(case["variances"]))


def doubles(values):
    return torch.tensor(values, dtype=torch.float64)


def error(denoise, case, tolerance):
    """Largest error over the items, in nats a dimension."""
    x, right = doubles(case["x"]), doubles(case["log_density"])
    found = likelihood(denoise, x, tolerance=tolerance)
    assert float(found.standard_error.abs().max()) == 0.0 and found.calls > 0
    return float((found.log_prob - right).abs().max()) / x.shape[1]


@pytest.mark.parametrize(("name", "which"), [*((name, 0) for name in WIDE), ("flow", 1), ("edm", 1)])
def test_mixtures_of_the_fixtures(name, which):
    """At most 1e-4 nat a dimension at tolerance 1e-6, on every process."""
    assert error(mixture(WIDE[name], CASES[which]), CASES[which], 1e-6) <= 1e-4


def test_the_error_shrinks_with_the_tolerance():
    errors = [error(mixture(flow(), CASES[1]), CASES[1], tolerance) for tolerance in (1e-2, 1e-4, 1e-6)]
    assert errors[1] < 0.1 * errors[0] and errors[2] < 0.1 * errors[1]


def test_between_whole_times_the_error_is_of_second_order():
    """A sharp mixture in 5 dimensions on T times: the second item lies where flows part and shows it."""
    x, right = doubles(CASES[1]["x"]), doubles(CASES[1]["log_density"])
    errors = []
    for T in (1000, 4000):
        schedule = ddim.Schedule.linear(T, beta_start=0.1 / T, beta_end=20 / T).zero_terminal_snr()
        found = likelihood(mixture(schedule, CASES[1]), x).log_prob
        errors.append((found - right).abs() / 5)
    assert float(errors[1].max()) <= 1e-4 and float(errors[1][1]) < float(errors[0][1]) / 8
    assert float(errors[0].max()) < 3e-3 and float(errors[0].median()) <= 1e-4


@pytest.mark.parametrize("process", [vp(), ve(), edm(), flow(), ddim.Schedule.linear(1000)], ids=lambda p: p.name)
def test_gaussians_under_the_noise_a_walk_starts_from(process):
    """x_T ~ N(0, start^2) through the closed flow sqrt(lambda / c_T): a Gaussian whose density is known."""
    mean, variance = 0.3, doubles([0.04, 0.25, 4.0])
    x = doubles([[0.1, -0.5, 2.0], [0.35, 1.2, -3.0]])
    at = process.at(process.T)
    scale = (variance / (at.signal**2 * variance + at.noise**2)).sqrt()
    law = torch.distributions.Normal(mean - scale * at.signal * mean, scale * process.start(process.T))
    found = likelihood(ddim.GaussianDenoiser(process, mean, variance), x, tolerance=1e-6)
    assert float((found.log_prob - law.log_prob(x).sum(1)).abs().max()) <= 3e-4


def test_a_density_adds_up_to_1():
    """Whatever the network is: here one that nobody trained, on a schedule of 40 times."""
    schedule = ddim.Schedule.linear(40, beta_start=0.0025, beta_end=0.5)
    odd = NetworkDenoiser(lambda x, t: torch.sin(2 * x) + 0.02 * t.view(-1, 1), schedule, prediction="v")
    x = torch.linspace(-12, 12, 601, dtype=torch.float64)[:, None]
    p = likelihood(odd, x, tolerance=1e-5).log_prob.exp()
    assert float(torch.trapezoid(p, x[:, 0])) == pytest.approx(1.0, abs=3e-3)


def test_items_do_not_depend_on_their_neighbours():
    denoise, x = mixture(flow(), CASES[1]), doubles(CASES[1]["x"])
    together = likelihood(denoise, x, probes=3, seeds=[5, 6, 7, 8])
    alone = likelihood(denoise, x[2:3], probes=3, seeds=[7])
    assert float((together.log_prob[2] - alone.log_prob[0]).abs()) < 1e-12
    assert float((together.standard_error[2] - alone.standard_error[0]).abs()) < 1e-12


def test_the_stated_interval_covers_the_truth():
    """400 repeats of 8 probes on a Gaussian with strong correlations: 93 to 97 % within +- 1.96 standard errors."""
    denoise, x, right = correlated(8)
    found = likelihood(denoise, x, tolerance=1e-3, probes=8, seeds=range(400))
    share = float(((found.log_prob - right).abs() <= 1.96 * found.standard_error).double().mean())
    assert 0.93 <= share <= 0.97, share


def correlated(d):
    """A Gaussian whose traces probes disagree on: the denoiser, one item 400 times, its log-density."""
    root = torch.linalg.qr(ddim.noise(range(d), (d,), dtype=torch.float64))[0]
    covariance = root @ torch.diag(torch.logspace(-2, 0.5, d, dtype=torch.float64)) @ root.T
    x = ddim.noise([1], (d,), dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    law = torch.distributions.MultivariateNormal(torch.zeros(d, dtype=torch.float64), covariance)
    return ddim.GaussianDenoiser(flow(), 0.0, covariance), x.expand(400, d), law.log_prob(x)


def test_as_many_probes_as_a_stated_error_takes():
    """400 repeats: every standard error is within it, and the interval covers the truth as often as it says."""
    denoise, x, right = correlated(48)
    pilot = likelihood(denoise, x[:1], tolerance=1e-3, probes=8).standard_error
    found = likelihood(denoise, x, tolerance=1e-3, probes=8, error=(error := 0.7 * float(pilot)), seeds=range(400))
    assert float(found.standard_error.max()) <= error and {8, 16, 32} <= set(found.probes.tolist())
    share = float(((found.log_prob - right).abs() <= 1.96 * found.standard_error).double().mean())
    assert 0.93 <= share <= 0.97, share
    one = likelihood(denoise, x[5:6], tolerance=1e-3, probes=8, error=error, seeds=[5])
    assert float((one.log_prob - found.log_prob[5]).abs()) < 1e-9 and one.probes[0] == found.probes[5]


def test_an_error_that_takes_more_gradients_than_the_trace_takes_the_trace():
    denoise, x, right = correlated(8)
    found = likelihood(denoise, x[:2], tolerance=1e-6, probes=2, error=1e-3)
    assert found.probes.tolist() == [0, 0] and found.standard_error.tolist() == [0.0, 0.0]
    assert float((found.log_prob - right).abs().max()) < 1e-3
    wide = ddim.GaussianDenoiser(flow(), 0.0, torch.eye(2000, dtype=torch.float64) + 0.5)
    with pytest.raises(ddim.Refused, match="more than 4096 probes"):
        likelihood(wide, torch.zeros(1, 2000, dtype=torch.float64), tolerance=0.5, probes=2, error=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 15, 63])
def test_students_quantile(n):
    assert _student(n) == pytest.approx(stats.t.ppf(0.975, n), rel=1e-2)


def test_the_walks_own_density_is_the_product_of_its_gains():
    """Gaussian data, S = 10: x_0 = mean + K (x_T - mean_T), K the product of cosines (docs/theory.md)."""
    variance, mean, tau = doubles([0.05, 0.25, 4.0]), 0.3, ddim.tau(1000, 10, "paper-linear")
    schedule = ddim.Schedule.linear(1000)
    denoise = ddim.GaussianDenoiser(schedule, mean, variance)
    x_T = ddim.noise([0, 1], (3,), dtype=torch.float64)
    gains = torch.ones(3, dtype=torch.float64)
    for t, s in pairwise(tau):
        at_t, at_s = schedule.at(t), schedule.at(s)
        c_t = at_t.signal**2 * variance + at_t.noise**2
        gains *= (at_t.signal * at_s.signal * variance + at_t.noise * at_s.noise) / c_t
    x_0, log_prob = walk_density(denoise, x_T, tau)
    right = torch.distributions.Normal(0.0, 1.0).log_prob(x_T).sum(1).double() - gains.log().sum()
    torch.testing.assert_close(log_prob, right, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(x_0, ddim.sample(denoise, x_T, tau))


def test_the_walks_density_draws_near_the_flows():
    case = CASES[1]
    denoise = mixture(flow(), case)
    errors = []
    for S in (20, 80):
        x_0, own = walk_density(denoise, ddim.noise([3], (5,), dtype=torch.float64), ddim.tau(flow(), S))
        errors.append(float((own - likelihood(denoise, x_0, tolerance=1e-7).log_prob).abs()))
    assert errors[1] < 0.5 * errors[0] < 0.5


def test_the_integrator_is_scipys_to_its_tolerance():
    """Two rows of a stiff and a gentle equation, each stepped by itself, against scipy's DOP853."""
    rate = doubles([1.0, 30.0])

    def slope(y, t, rows):
        return -rate[rows, None] * (y - torch.cos(t)[:, None])

    y, calls = integrated(slope, doubles([[1.0], [2.0]]), 0.0, 3.0, 1e-8, lambda error: error.abs().amax(1))
    for i in range(2):
        right = integrate.solve_ivp(
            lambda t, y, i=i: -float(rate[i]) * (y - math.cos(t)), (0, 3), [1.0 + i], "DOP853", rtol=1e-12, atol=1e-12
        )
        assert float(y[i, 0]) == pytest.approx(right.y[0, -1], abs=1e-6)
    assert int(calls[1]) > int(calls[0])


def test_conditions_reach_the_rows_they_belong_to_and_weights_get_no_gradients():
    net = torch.nn.Linear(2, 2).double()

    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, t, label):
            return 0.1 * self.net(x) + label.view(-1, 1)

    denoise = NetworkDenoiser(Shifted(), flow(), "velocity")
    x = doubles([[0.1, 0.2], [3.0, 0.3], [0.5, -0.4]])
    all_of_them = likelihood(denoise, x, label=torch.tensor([0, 1, 2])).log_prob
    for i in range(3):
        own = likelihood(denoise, x[i : i + 1], label=torch.tensor([i])).log_prob
        assert float((all_of_them[i] - own[0]).abs()) < 1e-9
    assert net.weight.grad is None and not all_of_them.requires_grad


@pytest.mark.parametrize(
    ("change", "how", "says"),
    [
        (Clip, {}, "Clip changes what the network says"),
        (lambda d: Guided(d, 2.0, 0), {}, "Guided changes what the network says"),
        (lambda d: Autoguided(d, d, 2.0), {}, "Autoguided changes what the network says"),
        (lambda d: Bound(Stitched(d, Clip(d), at=0.5)), {}, "Bound changes what the network says"),
        (None, {"probes": 1}, "at least 2"),
        (None, {"error": 0.1}, "by `probes`"),
        (None, {"probes": 4, "error": 0.0}, "above 0"),
        (None, {"tolerance": 0.0}, "between 0 and 1"),
        (None, {"probes": 4, "seeds": [1, 2]}, "1 items need 1 seeds"),
        (lambda d: NetworkDenoiser(lambda x, t: x.detach(), flow(), "velocity"), {}, "hides it from gradients"),
    ],
)
def test_what_has_no_likelihood_is_refused_in_one_line(change, how, says):
    denoise = ddim.GaussianDenoiser(flow(), 0.0, 1.0)
    with pytest.raises(ddim.Refused, match=says) as found:
        likelihood(change(denoise) if change else denoise, torch.zeros(1, 4), **how)
    assert "\n" not in str(found.value)


def test_many_dimensions_ask_for_probes():
    with pytest.raises(ddim.Refused, match="`probes` = 16"):
        likelihood(ddim.GaussianDenoiser(flow(), 0.0, 1.0), torch.zeros(1, 3, 32, 32))
