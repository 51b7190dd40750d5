"""Every solver converges at the order it names, against the closed-form flow of Gaussian data.

The schedule has signal = cos(phi), noise = sin(phi) with phi even in t, and so many steps that whole-numbered
times do not limit the result. A multistep method's first steps have no past and are of lower order, so solvers
of order 3 and 4 start with steps that double from one unit up, as usual in proofs of order. Expected values:
the flow sqrt(c_s/c_t) on each eigen-direction (docs/theory.md, 3), and the variance of the data for the SDE.
"""

import math
from itertools import pairwise

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, Schedule, noise, sample, tau, trajectory
from ddim.solve import SOLVERS, DPMSolverPP, solver_named

T, TOP, BOTTOM = 500_000, 1.25, 0.25  # phi from 1.25 (signal 0.32) to 0.25 (signal 0.97)
SCHEDULE = Schedule(torch.linspace(0.0, TOP, T + 1, dtype=torch.float64).cos() ** 2)
END = round(T * BOTTOM / TOP)
COVARIANCE = torch.tensor([0.1, 0.5, 3.0], dtype=torch.float64)
ORACLE = GaussianDenoiser(SCHEDULE, 0.3, COVARIANCE)
X_T = noise(range(8), (3,), dtype=torch.float64)
ORDERS = {
    "ddim": 1, "heun": 2, "ab2": 2, "ab3": 3, "ab4": 4, "plms": 2, "dpm++2m": 2, "dpm++3m": 3,
    "unipc": 3, "unipc3": 4, "unipc-b1": 3,
}  # fmt: skip


def grid(n, gentle_start):
    """About n even steps from T to END; a gentle start puts doubling steps before them."""
    h, times, size = (T - END) / n, [T], 1
    while gentle_start and size < h / 1.5:
        times.append(times[-1] - size)
        size *= 2
    top, rest = times[-1], math.ceil((times[-1] - END) / h)
    return times + [round(top - (top - END) * i / rest) for i in range(1, rest + 1)]


def slopes(errors):
    return [math.log2(a / b) for a, b in pairwise(errors)]


def errors(solver, counts, gentle_start):
    exact = ORACLE.flow(X_T, T, END)
    return [float((sample(ORACLE, X_T, grid(n, gentle_start), solver=solver) - exact).abs().max()) for n in counts]


def test_every_deterministic_solver_is_listed_here():
    assert {n for n in SOLVERS if not solver_named(n).stochastic} == set(ORDERS)


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_measured_order(name, order):
    solver = solver_named(name)
    assert solver.order == order
    found = slopes(errors(solver, (160, 320, 640), gentle_start=name in ("ab3", "ab4", "dpm++3m", "unipc3")))
    assert found[-1] == pytest.approx(order, abs=0.2)
    assert found[0] == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize(
    "schedule", [Schedule.cosine(1000), Schedule.cosine(4000), Schedule.linear().zero_terminal_snr()]
)
@pytest.mark.parametrize("name", ["heun", "plms", "ab2"])  # those in log SNR are for other times than these
def test_second_order_pays_on_schedules_that_end_in_almost_pure_noise(schedule, name):
    """There noise/signal reaches 2e4 and more: a slope averaged in it once threw Heun's images 100 times too far."""
    oracle, times = GaussianDenoiser(schedule, 0.0, 0.25), tau(schedule.T, 20, "uniform")
    x_T = noise(range(16), (64,), dtype=torch.float64)

    def error(solver):
        x = sample(oracle, x_T, times, solver=solver)
        return float((x - oracle.flow(x_T, schedule.T, 0)).square().mean().sqrt())

    assert error(solver_named(name)) < error(solver_named("ddim"))


def test_3m_as_published_is_of_order_two():
    """Its curvature term is half of what the integral says; with the right one the error is far smaller."""
    published = errors(DPMSolverPP(3, published=True), (80, 160, 320), gentle_start=True)
    assert slopes(published)[-1] == pytest.approx(2.0, abs=0.1)
    assert errors(DPMSolverPP(3), (320,), gentle_start=True)[0] < published[-1] / 50


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("ab2", 2), ("dpm++2m", 2), ("unipc", 3), ("heun", 2)])
def test_measured_order_upwards(name, order):
    """Encoding, from END to T: the same law with the flow's other direction."""
    exact, found = ORACLE.flow(X_T, END, T), []
    for n in (80, 160):
        up = grid(n, gentle_start=False)[::-1]
        found.append(float((sample(ORACLE, X_T, up, solver=solver_named(name)) - exact).abs().max()))
    assert slopes(found)[0] == pytest.approx(order, abs=0.25)


def variance_error(solver, covariance, n):
    """|Var x_END - c_END| from Var x_T = c_T, exactly: row 0 carries x_T, row i the noise of step i, all linear."""
    oracle, times = GaussianDenoiser(SCHEDULE, 0.0, covariance), grid(n, gentle_start=False)

    def unit(t):
        z = torch.zeros(len(times), 1, dtype=torch.float64)
        z[1 + times.index(t)] = 1.0
        return z

    def c(t):
        at = SCHEDULE.at(t)
        return at.signal**2 * covariance + at.noise**2

    x = torch.zeros(len(times), 1, dtype=torch.float64)
    x[0] = math.sqrt(c(T))
    *_, last = trajectory(oracle, solver, times, x, unit)
    return abs(float(last.x.square().sum()) - c(END))


@pytest.mark.parametrize(("solver", "order"), [(DDIM(1.0), 1), (DDIM(0.5), 1), (solver_named("dpm++2m-sde"), 2)])
@pytest.mark.parametrize("covariance", [0.1, 0.5])
def test_order_of_the_variance_of_stochastic_solvers(solver, order, covariance):
    found = slopes([variance_error(solver, covariance, n) for n in (80, 160)])
    assert found[0] == pytest.approx(order, abs=0.2)
