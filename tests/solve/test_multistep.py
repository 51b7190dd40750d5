"""Solvers with a carry: exact ends, exactness on polynomials, refusals."""

import math
from itertools import pairwise

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, NetworkDenoiser, Schedule, noise, sample, tau, trajectory
from ddim.denoise import NONE, Denoiser
from ddim.process import half_log_snr, parameterisation, rederive
from ddim.solve import AB, SOLVERS, DPMSolverPP, UniPC, solver_named
from ddim.solve.adams import mean_weights

SCHEDULE = Schedule.linear()
# two unlike directions and a mean: unit variance alone hides errors
ORACLE = GaussianDenoiser(SCHEDULE, 0.3, torch.tensor([0.05, 4.0], dtype=torch.float64))
SEEDS = range(3)
X_T = noise(SEEDS, (2,), dtype=torch.float64)
DETERMINISTIC = [n for n in SOLVERS if not solver_named(n).stochastic]


def z_of(t):
    return noise(SEEDS, (2,), purpose="step", step=t, dtype=torch.float64)


def our_states(solver, times):
    return [s.x for s in trajectory(ORACLE, solver, times, X_T, z_of if solver.stochastic else None)]


@pytest.mark.parametrize(
    "nodes", [[0.0], [0.0, -1.0], [0.0, -1.0, -2.0, -3.0], [0.0, -0.3, -2.5], [0.0, -4.0, -5.0, -9.0]]
)
def test_mean_weights_integrate_polynomials_exactly(nodes):
    weights = mean_weights(nodes)
    for k in range(len(nodes)):
        assert sum(w * u**k for w, u in zip(weights, nodes, strict=True)) == pytest.approx(1 / (k + 1), rel=1e-12)


@pytest.mark.parametrize(
    ("order", "expected"),
    [(2, [3 / 2, -1 / 2]), (3, [23 / 12, -4 / 3, 5 / 12]), (4, [55 / 24, -59 / 24, 37 / 24, -3 / 8])],
)
def test_mean_weights_on_even_nodes_are_adams_bashforth(order, expected):
    assert mean_weights([0.0, -1.0, -2.0, -3.0][:order]) == pytest.approx(expected)


class _Along(Denoiser):
    """A denoiser whose x0 or eps is a given polynomial of lambda or sigma, whatever x is."""

    invertible = True

    def __init__(self, schedule, x0=None, eps=None):
        self.process, self.x0, self.eps = schedule, x0, eps

    def __call__(self, x, t, conditions=NONE):
        at = self.process.at(t)
        if self.x0 is not None:
            return rederive(torch.full_like(x, self.x0(half_log_snr(at))), x, at)
        return parameterisation("eps").decode(torch.full_like(x, self.eps(at.noise / at.signal)), x, at)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_adams_bashforth_is_exact_for_eps_polynomial_in_sigma(order):
    """With eps = q(sigma) of degree order - 1, x/signal moves by the integral of q, once the start-up is over."""
    schedule, power = Schedule.cosine(50), order - 1
    denoise = _Along(schedule, eps=lambda sigma: (sigma - 0.5) ** power)
    times = (30, 27, 25, 20, 19, 12, 4, 0)
    walk = trajectory(denoise, AB(order), times, torch.ones(1, 1, dtype=torch.float64))
    states = list(zip(times[1:], walk, strict=True))
    for (t, a), (s, b) in pairwise(states[order - 2 :]):
        at_a, at_b = schedule.at(t), schedule.at(s)
        sigma_a, sigma_b = at_a.noise / at_a.signal, at_b.noise / at_b.signal
        integral = ((sigma_b - 0.5) ** order - (sigma_a - 0.5) ** order) / order
        assert float(b.x / at_b.signal) == pytest.approx(float(a.x / at_a.signal) + integral, rel=1e-9)


def test_3m_is_exact_for_x0_quadratic_in_lambda_and_the_published_one_is_not():
    schedule = Schedule.cosine(50)
    denoise = _Along(schedule, x0=lambda lam: 1.0 + lam + lam**2)

    def exact(x, t, s):  # int e^(l - l_s) (1 + l + l^2) dl = e^(l - l_s) (2 - l + l^2)
        a, b = schedule.at(t), schedule.at(s)
        la, lb = half_log_snr(a), half_log_snr(b)
        primitive = (2 - lb + lb**2) - math.exp(la - lb) * (2 - la + la**2)
        return b.noise / a.noise * x + b.signal * primitive

    def worst(solver):
        times = (40, 37, 35, 30, 29, 20)
        walk = trajectory(denoise, solver, times, torch.ones(1, 1, dtype=torch.float64))
        states = list(zip(times[1:], walk, strict=True))
        return max(abs(float(b.x) - exact(float(a.x), t, s)) for (t, a), (s, b) in pairwise(states[1:]))

    assert worst(DPMSolverPP(3)) < 1e-12
    assert worst(DPMSolverPP(3, published=True)) > 1e-2


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_one_step_and_the_last_step_are_the_predicted_x0(name):
    solver = solver_named(name)
    torch.testing.assert_close(sample(ORACLE, X_T, (1000, 0), solver=solver), ORACLE(X_T, 1000).x0)
    if name.startswith(("dpm", "unipc")):
        before, last = list(trajectory(ORACLE, solver, (1000, 500, 250, 100, 0), X_T))[-2:]
        torch.testing.assert_close(last.x, ORACLE(before.x, 100).x0)


def test_first_step_is_ddim_and_so_is_the_stochastic_one_with_eta_1():
    for name in ("ab2", "ab4", "dpm++2m", "dpm++3m", "unipc", "unipc3"):
        torch.testing.assert_close(our_states(solver_named(name), (900, 500))[0], our_states(DDIM(), (900, 500))[0])
    times = tau(1000, 7, "quadratic")
    torch.testing.assert_close(our_states(DPMSolverPP(1, stochastic=True), times)[-1], our_states(DDIM(1.0), times)[-1])


@pytest.mark.parametrize("name", SOLVERS)
def test_zero_terminal_snr_and_the_clean_end_are_walked(name):
    """signal = 0 at T (sigma infinite) and noise = 0 at 0 (lambda infinite): finite, and near the flow's answer."""
    schedule = SCHEDULE.zero_terminal_snr()
    oracle = GaussianDenoiser(schedule, 0.3, 0.25)
    solver = solver_named(name)
    x = noise(range(2000), (1,), dtype=torch.float64)
    out = sample(oracle, x, tau(1000, 100, "trailing"), solver=solver, seeds=range(2000))
    assert bool(torch.isfinite(out).all())
    assert float(out.mean()) == pytest.approx(0.3, abs=0.04)  # 4 standard errors of 2000 draws: 0.045
    assert float(out.std()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_solver_is_unchanged_by_use_and_calls_as_often_as_it_says(name):
    solver = solver_named(name)
    calls = []

    class Counting(Denoiser):
        process, invertible = SCHEDULE, True

        def __call__(self, x, t, conditions=NONE):
            calls.append(t)
            return ORACLE(x, t)

    times = tau(1000, 10, "uniform")
    first = sample(Counting(), X_T, times, solver=solver, seeds=SEEDS)
    extra = {"plms": 1, "heun": 9}.get(name, 0)  # PLMS's first step; all of Heun's steps but the last
    assert len(calls) == 10 + extra
    assert 0 not in calls
    assert torch.equal(first, sample(Counting(), X_T, times, solver=solver, seeds=SEEDS))


@pytest.mark.parametrize("name", ["ab3", "dpm++3m", "unipc3", "unipc", "dpm++2m"])
def test_better_than_ddim_on_ordinary_times(name):
    times = tau(1000, 20, "trailing")
    exact = ORACLE.flow(X_T, 1000, 0)
    ours = (sample(ORACLE, X_T, times, solver=solver_named(name)) - exact).square().mean().sqrt()
    ddim = (sample(ORACLE, X_T, times) - exact).square().mean().sqrt()
    assert float(ours) < 0.5 * float(ddim)


def test_float32_states_and_network_parameterisations_give_the_same_images():
    x = X_T.float()
    for name in DETERMINISTIC:
        for prediction in ("eps", "v", "x0"):

            def network(x_t, label, prediction=prediction):
                t = int(label[0]) + 1
                p = ORACLE(x_t, t)
                return parameterisation(prediction).target(p.x0, p.eps, SCHEDULE.at(t))

            denoise = NetworkDenoiser(network, SCHEDULE, prediction)
            out = sample(denoise, x, tau(1000, 20), solver=solver_named(name))
            assert out.dtype == torch.float32
            exact = sample(ORACLE, X_T, tau(1000, 20), solver=solver_named(name))
            torch.testing.assert_close(out.double(), exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("make", "message"),
    [(lambda: solver_named("euler"), "unknown solver 'euler'; choose one of ddim, heun"),
     (lambda: solver_named("dpm++2m", 0.5), "is deterministic, but eta = 0.5"),
     (lambda: solver_named("dpm++2m-sde", 0.5), "always injects the noise of eta = 1"),
     (lambda: solver_named("ddim", -1.0), "eta must be at least 0"),
     (lambda: AB(5), "order 2, 3 or 4"), (lambda: UniPC(4), "p = 1, 2 or 3"), (lambda: UniPC(2, "B3"), "'B1' or 'B2'"),
     (lambda: DPMSolverPP(4), "order 1, 2 or 3"), (lambda: DPMSolverPP(3, stochastic=True), "order 1 or 2"),
     (lambda: DPMSolverPP(2, published=True), "order 3")],
)  # fmt: skip
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        make()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_eta_reaches_ddim(eta):
    assert solver_named("ddim", eta) == DDIM(eta)
    assert solver_named("dpm++2m-sde", 1.0) == solver_named("dpm++2m-sde")
