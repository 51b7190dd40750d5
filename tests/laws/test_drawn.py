"""Laws over drawn schedules, processes, times, shapes, batches and dtypes; the draws are the same in every run."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ddim
from ddim.process import SPACINGS, Schedule, edm, flow, subvp, tau, ve, vp
from ddim.refused import Refused
from ddim.solve import SDE, SOLVERS, solver_named
from ddim.uses import decode, encode, law, likelihood, same_latents

DRAWN = settings(derandomize=True, deadline=None, database=None, max_examples=40)
OTHER_LENGTHS = ("ermongroup-uniform", "ermongroup-quad")  # their programs' own, quirks included
REAL = ("uniform", "trailing", "quadratic", "logsnr", "edm")


def number(low, high):
    return st.floats(low, high, allow_subnormal=False)


@st.composite
def schedules(draw, most=60):
    """A named one, its terminal SNR perhaps 0, or one of any betas; None where such a table is refused."""
    T = draw(st.integers(1, most))
    try:
        if draw(st.booleans()):
            return Schedule.from_betas(draw(st.lists(number(1e-6, 0.99), min_size=1, max_size=most)))
        made = getattr(Schedule, draw(st.sampled_from(["linear", "scaled_linear", "cosine", "sigmoid"])))(T)
        return made.zero_terminal_snr() if draw(st.booleans()) else made
    except Refused:
        return None


@st.composite
def processes(draw):
    return draw(st.one_of(
        st.builds(lambda low, more: vp(beta_min=low, beta_max=low + more), number(0.01, 1), number(1, 30)),
        st.builds(lambda low, more: subvp(beta_min=low, beta_max=low + more), number(0.01, 1), number(1, 30)),
        st.builds(lambda low, times: ve(sigma_min=low, sigma_max=low * times), number(0.001, 0.1), number(10, 1e4)),
        st.builds(edm), st.builds(flow),
    ))  # fmt: skip


@st.composite
def walks(draw, real=False):
    """A process, falling times on it, any of them, and a Gaussian's variance and mean."""
    process = draw(processes() if real else schedules(most=200).filter(lambda s: s is not None))
    if real:
        times = tau(process, draw(st.integers(1, 12)), draw(st.sampled_from(REAL)))
    else:
        inner = draw(st.sets(st.integers(1, process.T), min_size=1, max_size=12))
        times = (*sorted(inner, reverse=True), 0)
    return process, times, draw(number(0.01, 4)), draw(number(-1, 1))


shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
either = pytest.mark.parametrize("real", [False, True], ids=["schedule", "real times"])


@DRAWN
@given(schedules(most=1500), st.data())
def test_a_schedule_falls_strictly_from_the_image(schedule, data):
    if schedule is None:
        return
    table = schedule.alpha_bar.tolist()
    assert table[0] == 1.0 and len(table) == schedule.T + 1
    assert all(0.0 < b < a for a, b in itertools.pairwise(table[:-1])) and 0.0 <= table[-1] < table[-2]
    t = data.draw(st.integers(0, schedule.T))
    at = schedule.at(t)
    assert at.signal**2 == pytest.approx(table[t], rel=1e-14, abs=1e-300)
    assert at.signal**2 + at.noise**2 == pytest.approx(1.0, rel=1e-14)


@settings(DRAWN, max_examples=150)
@given(st.integers(1, 3000), st.data())
def test_times_are_as_many_as_asked_for_and_fall_strictly(T, data):
    steps, spacing = data.draw(st.integers(1, T)), data.draw(st.sampled_from(SPACINGS))
    offset = data.draw(st.integers(0, 3)) if spacing == "leading" else 0
    try:
        times = tau(T, steps, spacing, offset=offset)
    except Refused:
        assert spacing == "openai" or offset
        return
    assert times[-1] == 0 and times[0] <= T and all(t > s for t, s in itertools.pairwise(times))
    assert len(times) == steps + 1 or spacing in OTHER_LENGTHS
    assert tau(T, None, times) == times


@DRAWN
@given(schedules(most=300).filter(lambda s: s is not None), st.data())
def test_times_by_the_log_snr_of_any_schedule(schedule, data):
    steps = data.draw(st.integers(1, schedule.T))
    times = tau(schedule, steps, "logsnr")
    assert len(times) == steps + 1 and times[0] == schedule.T and times[-1] == 0
    assert all(t > s for t, s in itertools.pairwise(times))


@settings(DRAWN, max_examples=60)
@given(processes(), st.integers(1, 3000), st.sampled_from(REAL))
def test_real_times_too(process, steps, spacing):
    times = tau(process, steps, spacing)
    assert len(times) == steps + 1 and times[0] == process.T and times[-1] == 0.0
    assert all(t > s for t, s in itertools.pairwise(times))
    ratios = [math.atan2(at.noise, at.signal) for at in map(process.at, times)]
    assert all(a > b for a, b in itertools.pairwise(ratios))


@either
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@DRAWN
@given(st.data(), shapes, st.lists(st.integers(0, 2**70), min_size=1, max_size=3), st.sampled_from([0.0, 0.5, 1.0]))
def test_ddim_on_a_gaussian_is_its_closed_form(real, dtype, data, shape, seeds, eta):
    """Number by number in Python: x_s = a_s x0 + sqrt(b_s^2 - std^2) eps + std z with eq. 16's std, on N(mean, v)."""
    process, times, v, mean = data.draw(walks(real))
    x = ddim.noise(seeds, shape, dtype=dtype) * process.start(times[0])
    made = ddim.sample(ddim.GaussianDenoiser(process, mean, v), x, times, solver=ddim.DDIM(eta), seeds=seeds)
    assert made.shape == x.shape and made.dtype == dtype
    wanted = x.double()
    for t, s in itertools.pairwise(times):
        a, b, c, d = (v for at in (process.at(t), process.at(s)) for v in (at.signal, at.noise))
        std = eta * d / b * math.sqrt(max(0.0, b * b - (a / c * d) ** 2))
        off = (wanted - a * mean) / (a * a * v + b * b)
        z = ddim.noise(seeds, shape, purpose="step", step=t, dtype=dtype).double()
        wanted = c * (mean + a * v * off) + math.sqrt(max(0.0, d * d - std * std)) * b * off + std * z
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    torch.testing.assert_close(made.double(), wanted, rtol=tolerance, atol=tolerance * process.start(times[0]))


@either
@DRAWN
@given(st.data(), shapes, st.integers(2, 7), st.sampled_from([0.0, 1.0]))
def test_a_picture_is_of_its_seed_whatever_the_batch(real, data, shape, n, eta):
    process, times, v, mean = data.draw(walks(real))
    oracle, solver = ddim.GaussianDenoiser(process, mean, v), ddim.DDIM(eta)
    seeds = data.draw(st.lists(st.integers(0, 2**70), min_size=n, max_size=n, unique=True))
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, n - 1)))), n]
    x = ddim.noise(seeds, shape)
    whole = ddim.sample(oracle, x, times, solver=solver, seeds=seeds)
    parts = [
        ddim.sample(oracle, ddim.noise(seeds[i:j], shape), times, solver=solver, seeds=seeds[i:j])
        for i, j in itertools.pairwise(cuts)
    ]
    assert torch.equal(whole, torch.cat(parts))


@either
@DRAWN
@given(st.data(), shapes, st.sampled_from([*SOLVERS, *SDE]))
def test_no_solver_minds_the_shape(real, data, shape, name):
    """Items of any shape, numbers too, are what they are as one row."""
    process, times, v, mean = data.draw(walks(real))
    oracle, x = ddim.GaussianDenoiser(process, mean, v), ddim.noise([3, 5], shape, dtype=torch.float64)
    x, d = x * process.start(times[0]), x[0].numel()
    try:
        made = ddim.sample(oracle, x, times, solver=solver_named(name), seeds=[3, 5])
    except Refused:
        with pytest.raises(Refused):
            ddim.sample(oracle, x.reshape(2, d), times, solver=solver_named(name), seeds=[3, 5])
        return
    flat = ddim.sample(oracle, x.reshape(2, d), times, solver=solver_named(name), seeds=[3, 5])
    torch.testing.assert_close(made.reshape(2, d), flat, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_nor_does_any_use_of_the_walk():
    """Items that are single numbers: a shape of (), which no list of shapes above has often."""
    oracle, x = ddim.GaussianDenoiser(Schedule.linear(50), 0.2, 0.3), torch.tensor([0.5, -1.0], dtype=torch.float64)
    times = tau(50, 5)
    z, wide = encode(oracle, x, times, "exact"), encode(oracle, x[:, None], times, "exact")
    torch.testing.assert_close(z.x_T, wide.x_T[:, 0])
    assert law(z.x_T).variance == law(wide.x_T).variance
    torch.testing.assert_close(likelihood(oracle, x).log_prob, likelihood(oracle, x[:, None]).log_prob)
    near, far = (next(iter(same_latents(oracle, y, [times], tau(50, 50), seeds=[0, 1]))) for y in (x, x[:, None]))
    torch.testing.assert_close(near.distance, far.distance)
    torch.testing.assert_close(ddim.uses.along(x, x[0], 0.5), ddim.uses.along(x[:, None], x[:1], 0.5)[:, 0])


@either
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(DRAWN, max_examples=8)
@given(st.data(), shapes, st.integers(1, 3))
def test_encoded_exactly_it_comes_back(real, dtype, data, shape, n):
    process, times, v, mean = data.draw(walks(real))
    oracle = ddim.GaussianDenoiser(process, mean, v)
    x = ddim.noise(range(n), shape, dtype=dtype).clamp(-1, 1)
    try:
        z = encode(oracle, x, times, "exact")
    except Refused as error:
        assert len(times) == 2, error
        return
    assert float((decode(oracle, z) - x).abs().max()) < (1e-6 if dtype == torch.float64 else 1e-3)
