"""Every solver converges at the order it names on the EDM and flow-matching processes too; see test_order.py.

Times are real, so the grid is even in phi = arctan(noise/signal) exactly; solvers of order 3 and 4 start with steps
that double from a tiny one, as there.
"""

import math
from itertools import pairwise

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, noise, sample, trajectory
from ddim.process import edm, flow
from ddim.solve import SOLVERS, end_of, solver_named

TOP, BOTTOM, TINY = 1.25, 0.25, 2.5e-6
COVARIANCE = torch.tensor([0.1, 0.5, 3.0], dtype=torch.float64)
X = noise(range(8), (3,), dtype=torch.float64)
DETERMINISTIC = [n for n in SOLVERS if not solver_named(n).stochastic]
AT_ANGLE = {"edm": (edm(), math.tan), "flow": (flow(), lambda phi: math.tan(phi) / (1.0 + math.tan(phi)))}


def angles(n, gentle_start):
    h, found, size = (TOP - BOTTOM) / n, [TOP], TINY
    while gentle_start and size < h / 1.5:
        found.append(found[-1] - size)
        size *= 2
    top, rest = found[-1], math.ceil((found[-1] - BOTTOM) / h)
    return found + [top - (top - BOTTOM) * i / rest for i in range(1, rest + 1)]


def slopes(errors):
    return [math.log2(a / b) for a, b in pairwise(errors)]


@pytest.mark.parametrize("kind", AT_ANGLE)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_measured_order(kind, name):
    (process, time_at), solver = AT_ANGLE[kind], solver_named(name)
    oracle, errors = GaussianDenoiser(process, 0.3, COVARIANCE), []
    for n in (80, 160, 320):
        times = [time_at(phi) for phi in angles(n, gentle_start=name in ("ab3", "ab4", "dpm++3m", "unipc3"))]
        x = process.at(times[0]).noise * X
        exact = oracle.flow(x, times[0], times[-1])
        errors.append(float((sample(oracle, x, times, solver=solver) - exact).abs().max()))
    found = slopes(errors)
    assert found[-1] == pytest.approx(solver.order, abs=0.25)
    assert found[0] == pytest.approx(solver.order, abs=0.45)


@pytest.mark.parametrize("kind", AT_ANGLE)
@pytest.mark.parametrize(("solver", "order"), [(DDIM(1.0), 1), (DDIM(0.5), 1), (solver_named("dpm++2m-sde"), 2)])
def test_order_of_the_variance_of_stochastic_solvers(kind, solver, order):
    process, time_at = AT_ANGLE[kind]
    oracle, errors = GaussianDenoiser(process, 0.0, 0.5), []

    def c(t):
        at = process.at(t)
        return at.signal**2 * 0.5 + at.noise**2

    for n in (80, 160):
        times = [time_at(phi) for phi in angles(n, gentle_start=False)]
        x = torch.zeros(len(times), 1, dtype=torch.float64)
        x[0] = math.sqrt(c(times[0]))

        def pulse(t, times=times, like=x):
            z = torch.zeros_like(like)
            z[1 + times.index(t)] = 1.0
            return z

        variance = end_of(trajectory(oracle, solver, times, x, pulse)).square().sum()
        errors.append(abs(float(variance) - c(times[-1])))
    assert slopes(errors)[0] == pytest.approx(order, abs=0.2)
