"""Every process against closed forms: 60 published cases, the cosines, one flow for all, round trips.

docs/theory.md: with a = signal, b = noise, rho = b/a the deterministic walk is one and the same curve in x/a over
rho for every process; on N(mu, lambda) a walk's mean and variance are known exactly. They are read off a real run by
superposition: 0, 1 and a unit pulse of noise at every step, side by side in one batch.
"""

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, MixtureDenoiser, Schedule, noise, sample, tau, trajectory
from ddim.process import edm, flow, subvp, ve, vp
from ddim.solve import SOLVERS, end_of, solver_named
from ddim.uses import METHODS, decode, encode

CASES = json.loads((Path(__file__).parent.parent / "data" / "beyond.json").read_text())["processes"]
PROCESSES = {"ve": ve(), "edm": edm(), "flow": flow(), "vp": vp(), "subvp": subvp()}
SPACINGS = ["uniform", "trailing", "quadratic", "logsnr", "edm"]


def every_process(test):
    return pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)(test)


def law_of_walk(denoise, solver, times, start_variance):
    """Mean and variance of x at times[-1] from N(0, start_variance) at times[0]."""
    start = torch.zeros(len(times) + 1, 1, dtype=torch.float64)
    start[1] = 1.0
    row = {t: 2 + i for i, t in enumerate(times[:-1])}

    def pulse(t):
        z = torch.zeros_like(start)
        z[row[t]] = 1.0
        return z

    x = end_of(trajectory(denoise, solver, times, start, pulse)).flatten()
    responses = x[1:] - x[0]
    return float(x[0]), float(responses[0] ** 2 * start_variance + responses[1:].square().sum())


@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c['process']}-{len(c['times'])}-{c['variance_data']}-{c['eta']}"
)
def test_published_case(case):
    process, times = PROCESSES[case["process"]], (*case["times"], 0.0)
    for t, level in zip(times, case["levels"], strict=True):
        assert process.at(t) == pytest.approx(level, rel=1e-10, abs=1e-300)
    if process.name[:2] != "vp":  # whose cases start from N(0, 1), as papers do; ours from the noise there is
        assert process.start(times[0]) ** 2 == pytest.approx(case["start_variance"], rel=1e-10)
    denoise = GaussianDenoiser(process, case["mean_data"], case["variance_data"])
    mean, variance = law_of_walk(denoise, DDIM(case["eta"]), times, case["start_variance"])
    assert mean == pytest.approx(case["mean"], rel=1e-10)
    assert variance == pytest.approx(case["variance"], rel=1e-10)


def test_there_are_sixty_of_all_kinds():
    assert len(CASES) == 60
    assert {(c["process"], c["eta"]) for c in CASES} == {(p, eta) for p in PROCESSES for eta in (0.0, 0.5, 1.0)}


def angle(process, t, variance):
    """phi = arctan(b / (a sqrt(lambda)))."""
    at = process.at(t)
    return math.atan2(at.noise, at.signal * math.sqrt(variance))


def root_c(process, t, variance):
    at = process.at(t)
    return math.sqrt(at.signal**2 * variance + at.noise**2)


def gain(process, times, variance):
    """K_S = sqrt(c_S / c_0) prod cos(dphi)."""
    phi = [angle(process, t, variance) for t in times]
    ends = root_c(process, times[-1], variance) / root_c(process, times[0], variance)
    return ends * math.prod(math.cos(a - b) for a, b in pairwise(phi))


@every_process
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("variance", [0.05, 1.0, 4.0])
def test_telescoped_product_of_cosines(process, spacing, variance):
    """On the whole walk, on one that ends above 0, and upwards."""
    times, one = tau(process, 11, spacing), torch.ones(1, 1, dtype=torch.float64)
    denoise = GaussianDenoiser(process, 0.0, variance)
    for walked in (times, times[2:-3], times[::-1][:-1]):
        assert float(sample(denoise, one, walked)) == pytest.approx(gain(process, walked, variance), rel=1e-9)


def mixture(process):
    return MixtureDenoiser(process, [1.0, 2.0], [-0.6, 0.5], [0.05, 0.3])


def gaussian(process):
    return GaussianDenoiser(process, 0.3, torch.tensor([0.05, 4.0], dtype=torch.float64))


@every_process
@pytest.mark.parametrize("oracle", [gaussian, mixture])
@pytest.mark.parametrize("name", SOLVERS)
def test_all_processes_walk_one_flow(process, oracle, name):
    """Met at the same noise/signal, x/signal is that of the schedule's walk: every solver, SDEs with their noise."""
    schedule = Schedule.linear()
    ours = (800, 640, 500, 333, 150, 60, 21, 0)  # noise/signal from 26.7 down: within all of them
    theirs = tuple(process.time_of(schedule.at(t).noise / schedule.at(t).signal) for t in ours)
    y, solver = noise(range(4), (2,), dtype=torch.float64), solver_named(name)

    def walk(denoise, times):
        at = {t: i for i, t in enumerate(times)}
        seeds = range(4)
        draw = lambda t: noise(seeds, (2,), purpose="step", step=at[t], dtype=torch.float64)  # noqa: E731
        first = denoise.process.at(times[0]).noise * y
        for s, step in zip(times[1:], trajectory(denoise, solver, times, first, draw), strict=True):
            yield step.x / denoise.process.at(s).signal

    for a, b in zip(walk(oracle(schedule), ours), walk(oracle(process), theirs), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-9)


@every_process
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_makes_the_data_from_pure_noise(process, name):
    """Also where T holds no signal (flow): the mean and spread of N(0.3, 0.25), from 2000 draws."""
    seeds, times = range(2000), tau(process, 100, "logsnr")
    x_T = process.start(times[0]) * noise(seeds, (1,), dtype=torch.float64)
    out = sample(GaussianDenoiser(process, 0.3, 0.25), x_T, times, solver=solver_named(name), seeds=seeds)
    assert float(out.mean()) == pytest.approx(0.3, abs=0.05)  # 4 standard errors: 0.045
    assert float(out.std()) == pytest.approx(0.5, abs=0.05)


@every_process
@pytest.mark.parametrize("method", [m for m in METHODS if m != "naive"])
@pytest.mark.parametrize("oracle", [gaussian, mixture])
def test_decode_of_encode_is_the_image(process, method, oracle):
    x = 0.8 * noise(range(5), (2,), dtype=torch.float64)
    times = tau(process, 25, "logsnr")
    z = encode(oracle(process), x, times, method)
    torch.testing.assert_close(decode(oracle(process), z), x, rtol=0, atol=1e-7)
    assert float(z.certificate.psnr.min()) > 120 and z.recipe.tau == times


@every_process
def test_naive_round_trip_is_the_product_of_squared_cosines(process):
    x, times = torch.linspace(-2, 2, 6, dtype=torch.float64)[:, None], tau(process, 30, "logsnr")
    if process.at(times[0]).signal == 0.0:
        times = times[1:]  # at signal 0 nothing of the image is left to come back
    oracle = GaussianDenoiser(process, 0.0, 0.25)
    phi = [angle(process, t, 0.25) for t in times]
    shrunk = math.prod(math.cos(a - b) for a, b in pairwise(phi)) ** 2
    torch.testing.assert_close(decode(oracle, encode(oracle, x, times, "naive")), shrunk * x, rtol=1e-10, atol=1e-12)
    assert 0.1 < shrunk < 0.99
