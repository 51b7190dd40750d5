"""Langevin steps, the reverse SDE by Euler and Maruyama, predictor and corrector, churn: their laws on Gaussian data.

On N(0, lambda) every step is linear in x and in its noise, so that gains and variances are read off the solver itself
by pulses and compared with closed forms.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

import ddim
from ddim import GaussianDenoiser, MixtureDenoiser, noise, sample, tau, trajectory
from ddim.process import edm, flow, subvp, ve, vp
from ddim.solve import SDE, Churned, EulerMaruyama, Heun, Langevin, PredictorCorrector, solver_named, step_noise

PROCESSES = {"ve": ve(), "edm": edm(), "flow": flow(), "vp": vp(), "subvp": subvp()}
LAMBDA = 0.25
ONE, NONE = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)


def gains(solver, process, t, s, variance=LAMBDA):
    """d x_s / d x_t, and those of each noise, of a linear solver on Gaussian data of mean 0."""
    oracle, many = GaussianDenoiser(process, 0.0, variance), solver.draws
    silent = torch.zeros(many, 1, 1, dtype=torch.float64)
    shaped = (lambda z: z) if many > 1 else (lambda z: z[0])
    own = float(solver.step(oracle, ONE, t, s, solver.init(), shaped(silent)).x)
    pulses = [
        float(solver.step(oracle, NONE, t, s, solver.init(), shaped(silent + torch.eye(many)[k].view(-1, 1, 1))).x)
        for k in range(many)
    ]
    return own, pulses


def total(process, t, variance=LAMBDA):
    at = process.at(t)
    return at.signal**2 * variance + at.noise**2


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_langevin_steps_settle_at_the_closed_form(process):
    """c/(1 - a/(4c)) in units where the signal is 1; after K steps, (1 - a/(2c))^(2K) of what was there is left."""
    t, s = process.time_of(0.6), process.time_of(0.4)
    a, c = 0.2 * 0.6**2, LAMBDA + 0.6**2
    ratio = process.at(s).signal  # of x at s to y
    for repeats in (1, 7, 40):
        own, pulses = gains(Langevin(0.2, repeats), process, t, s)
        left = (1 - a / (2 * c)) ** repeats
        assert own * process.at(t).signal / ratio == pytest.approx(left, rel=1e-9, abs=1e-12)
        reached = sum(p**2 for p in pulses) / ratio**2
        assert reached == pytest.approx(c / (1 - a / (4 * c)) * (1 - left**2), rel=1e-9)


def variance_after(solver, process, times, variance=LAMBDA):
    v = total(process, times[0], variance)
    for t, s in pairwise(times):
        own, pulses = gains(solver, process, t, s, variance)
        v = own**2 * v + sum(p**2 for p in pulses)
    return v


def test_euler_maruyama_is_of_first_order():
    """Error of the variance at rho = 0.05, from rho = 20: halves with the step."""
    process = edm()
    grids = [np.geomspace(20.0, 0.05, n + 1).tolist() for n in (40, 80, 160)]
    errors = [abs(variance_after(EulerMaruyama(), process, g) - total(process, 0.05)) for g in grids]
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert all(0.9 < slope < 1.1 for slope in slopes), slopes


def test_euler_maruyama_is_the_formula_to_the_letter():
    """y_s = y_t + (rho_t^2 - rho_s^2) score + sqrt(rho_t^2 - rho_s^2) z, score = -y/(lambda + rho_t^2)."""
    process, (t, s) = ve(), (0.7, 0.6)
    rho_t, rho_s = process.at(t).noise, process.at(s).noise
    own, (pulse,) = gains(EulerMaruyama(), process, t, s)
    assert own == pytest.approx(1 - (rho_t**2 - rho_s**2) / (LAMBDA + rho_t**2), rel=1e-10)
    assert pulse == pytest.approx(math.sqrt(rho_t**2 - rho_s**2), rel=1e-12)


def test_churn_is_heuns_step_from_above():
    """Variance v + S_noise^2 (rho_hat^2 - rho^2) goes through Heun's gain from rho_hat; without gamma it is Heun."""
    process, t, s = edm(), 2.0, 1.5
    for solver in (Churned(0.0), Churned(0.3, low=2.5), Churned(0.3, high=1.9)):
        assert gains(solver, process, t, s) == (gains(Heun(), process, t, s)[0], [0.0])
    own, (pulse,) = gains(Churned(0.3, inflate=1.1), process, t, s)
    above, _ = gains(Heun(), process, 2.6, s)
    assert own == pytest.approx(above, rel=1e-12)
    assert pulse == pytest.approx(above * 1.1 * math.sqrt(2.6**2 - 2.0**2), rel=1e-12)


def test_churn_of_a_set_amount_converges_to_the_law():
    """gamma = S/N: the more steps, the nearer to the data's variance."""
    process, errors = edm(), []
    for n in (20, 40, 80):
        grid = np.geomspace(20.0, 0.05, n + 1).tolist()
        errors.append(abs(variance_after(Churned(min(4.0 / n, 0.4)), process, grid) - total(process, 0.05)))
    assert errors[0] > 1.8 * errors[1] > 3.2 * errors[2] and errors[2] < 2e-3


def test_the_corrector_settles_near_the_law():
    """In many dimensions its step is 2 snr^2 c, whose stationary variance is c/(1 - snr^2)."""
    process, t, seeds = edm(), 0.5, range(8)
    oracle, solver = GaussianDenoiser(process, 0.0, LAMBDA), PredictorCorrector(0.16)
    c = LAMBDA + t**2
    x = noise(seeds, (512,), dtype=torch.float64)
    kept = []
    for k in range(400):
        z = noise(seeds, (512,), purpose="test", step=k, dtype=torch.float64)
        x = solver._corrected(oracle(x, t), process.at(t), x, z)
        if k >= 100:
            kept.append(float(x.square().mean()))
    assert sum(kept) / len(kept) == pytest.approx(c / (1 - 0.16**2), rel=0.01)


def test_a_corrector_mends_what_a_coarse_predictor_does():
    process, seeds = ve(), range(16)
    oracle, times = GaussianDenoiser(process, 0.0, LAMBDA), tau(ve(), 12, "logsnr")
    x_T = process.start(times[0]) * noise(seeds, (256,), dtype=torch.float64)
    apart = {}
    for name, solver in (("em", EulerMaruyama()), ("pc", PredictorCorrector(0.3, 3))):
        apart[name] = abs(float(sample(oracle, x_T, times, solver=solver, seeds=seeds).square().mean()) - LAMBDA)
    assert apart["pc"] < 0.5 * apart["em"], apart


@pytest.mark.parametrize("name", SDE)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_each_draws_a_mixture(process, name):
    """Means, spread and shares of two heaps, also where T holds no signal (flow)."""
    seeds = range(300)
    oracle = MixtureDenoiser(process, [1.0, 2.0], [-0.6, 0.5], 0.02)
    times = tau(process, 100 if name in ("pc", "euler-maruyama") else 40, "logsnr")
    solver = {"langevin": Langevin(0.2, 25), "heun-churn": Churned(0.1)}.get(name) or solver_named(name)
    dims = 64 if name == "pc" else 1  # the corrector's step goes by norms, which few numbers do not settle
    x_T = process.start(times[0]) * noise(seeds, (dims,), dtype=torch.float64)
    x = sample(oracle, x_T, times, solver=solver, seeds=seeds)
    right = x.mean(1) > -0.05
    assert float(right.double().mean()) == pytest.approx(2 / 3, abs=0.1)  # standard error 0.027
    assert float(x[right].mean()) == pytest.approx(0.5, abs=0.07)
    assert float(x[~right].mean()) == pytest.approx(-0.6, abs=0.07)
    assert float(x[right].std()) == pytest.approx(math.sqrt(0.02), rel=0.25)


@pytest.mark.parametrize("name", [n for n in SDE if n != "heun-churn"])
def test_one_sde_for_all_processes(name):
    """Met at the same noise/signal, x/signal is the same walk on every process."""
    rhos, seeds, found = (30.0, 8.0, 2.0, 0.5, 0.1), range(3), []
    for process in (*PROCESSES.values(), ddim.Schedule.linear()):
        if process.discrete:
            continue
        times = [*(process.time_of(r) for r in rhos), 0.0]
        at = {t: i for i, t in enumerate(times)}
        draw = lambda t, k=0, at=at: noise(seeds, (4,), purpose=f"z/{k}", step=at[t], dtype=torch.float64)  # noqa: E731
        x = process.at(times[0]).noise * noise(seeds, (4,), dtype=torch.float64)
        *_, last = trajectory(MixtureDenoiser(process, [1, 2], [-0.6, 0.5], 0.1), solver_named(name), times, x, draw)
        found.append(last.x)
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", SDE)
def test_calls_and_seeds(name):
    """As many calls as said; an image depends on its own seed, whatever else is in the batch."""
    process, solver = edm(), solver_named(name)
    oracle, times = MixtureDenoiser(process, [1, 1], [-0.5, 0.5], 0.1), tau(process, 5, "edm")
    x_T = 80 * noise([1, 2, 3], (6,))
    walk = trajectory(oracle, solver, times, x_T, step_noise([1, 2, 3], x_T))
    assert sum(step.calls for step in walk) == solver.calls(times)
    whole = sample(oracle, x_T, times, solver=solver, seeds=[1, 2, 3])
    torch.testing.assert_close(sample(oracle, x_T[1:2], times, solver=solver, seeds=[2]), whole[1:2])


def test_what_cannot_be_is_refused():
    for make, words in (
        (lambda: Langevin(4.0), "between 0 and 4"), (lambda: Langevin(0.1, 0), "repeats must be at least 1"),
        (lambda: PredictorCorrector(0.0), "snr must be above 0"), (lambda: PredictorCorrector(0.1, 0), "corrections"),
        (lambda: Churned(0.5), "gamma must lie between"), (lambda: Churned(0.1, 2.0, 1.0), "low < high"),
        (lambda: solver_named("pc", 0.5), "always injects"),
    ):  # fmt: skip
        with pytest.raises(ddim.Refused, match=words):
            make()
    schedule = ddim.Schedule.linear(100)
    oracle = GaussianDenoiser(schedule, 0.0, LAMBDA)
    with pytest.raises(ddim.Refused, match="needs a continuous process"):
        sample(oracle, noise([0], (2,)), tau(schedule, 4), solver=Churned(), seeds=[0])
    for name in ("euler-maruyama", "pc", "langevin"):
        assert bool(
            sample(oracle, noise([0], (2,)), tau(schedule, 9), solver=solver_named(name), seeds=[0]).isfinite().all()
        )
