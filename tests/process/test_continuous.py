"""Continuous processes: their levels as the papers write them, and what every one of them promises."""

import math
from itertools import pairwise

import pytest
import torch

from ddim import Refused, Schedule
from ddim.process import Continuous, edm, flow, half_log_snr, subvp, ve, vp

PROCESSES = {
    "ve": ve(), "edm": edm(), "flow": flow(), "vp": vp(), "subvp": subvp(),
    "ve-wide": ve(0.001, 1000.0), "edm-narrow": edm(0.01, 5.0), "vp-gentle": vp(0.5, 8.0),
}  # fmt: skip
TIMES = [1e-3, 0.1, 0.35, 0.8, 1.0]


def every_process(test):
    return pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)(test)


@pytest.mark.parametrize("t", TIMES)
def test_levels_are_the_papers(t):
    alpha_bar = math.exp(-(t**2) * (20.0 - 0.1) / 2 - t * 0.1)  # exp(-int_0^t beta), beta(s) = 0.1 + 19.9 s
    assert vp().at(t) == pytest.approx((math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)), rel=1e-9)
    assert subvp().at(t) == pytest.approx((math.sqrt(alpha_bar), 1 - alpha_bar), rel=1e-9)
    assert ve().at(t) == pytest.approx((1.0, 0.01 * 5000.0**t), rel=1e-12)
    assert edm().at(80 * t) == (1.0, 80 * t)
    assert flow().at(t) == (1.0 - t, t)


@every_process
def test_the_image_is_at_0_and_noise_rises_from_there(process):
    assert process.at(0) == (1.0, 0.0) == process.at(0.0)
    assert not process.discrete and 0 < process.first < process.T
    times = [process.T * (i / 999) ** 3 for i in range(1000)]
    ratios = [at.noise / at.signal if at.signal else math.inf for at in map(process.at, times)]
    assert all(a < b for a, b in pairwise(ratios))


@every_process
def test_at_batch_is_at(process):
    times = [0.0, process.first, 0.3 * process.T, process.T]
    like = torch.zeros(4, 2, 3, dtype=torch.float64)
    levels = process.at_batch(torch.tensor(times, dtype=torch.float64), like)
    for i, t in enumerate(times):
        at = process.at(t)
        assert (levels.signal[i].item(), levels.noise[i].item()) == (at.signal, at.noise)
    assert levels.signal.shape == levels.noise.shape == (4, 1, 1)
    assert process.at_batch(torch.tensor([0.5]), torch.zeros(1, 2)).noise.dtype == torch.float32
    with pytest.raises(Refused, match="outside"):
        process.at_batch(torch.tensor([0.5, 2 * process.T]), like)


@every_process
def test_time_of_inverts_the_ratio(process):
    for t in (process.first, 0.02 * process.T, 0.5 * process.T, 0.99 * process.T):
        at = process.at(t)
        assert process.time_of(at.noise / at.signal) == pytest.approx(t, rel=1e-12)
    assert process.time_of(0.0) == 0.0
    at = process.at(process.T)
    if at.signal > 0:
        with pytest.raises(Refused, match="beyond"):
            process.time_of(1.01 * at.noise / at.signal)
    else:
        assert process.time_of(1e6) == pytest.approx(1e6 / (1 + 1e6), rel=1e-12)


@every_process
def test_a_walk_starts_from_the_noise_there_is(process):
    for t in (process.first, 0.4 * process.T, process.T):
        assert process.start(t) == process.at(t).noise
    assert Schedule.linear().start(1000) == Schedule.linear().start(500) == 1.0  # DDPM's and DDIM's own


@every_process
def test_times_are_checked(process):
    assert process.checked([process.T, torch.tensor(0.5), 0]) == (process.T, 0.5, 0.0)
    for bad in (-1e-9, process.T * 1.001):
        with pytest.raises(Refused, match=r"outside 0\.\."):
            process.checked([process.T, bad])
        with pytest.raises(Refused, match=r"outside 0\.\."):
            process.at(bad)


def test_processes_of_one_name_are_one_and_recipes_tell_others_apart():
    assert vp() == vp(0.1, 20.0) and vp() != vp(0.2) and edm() != ve()
    identities = {p.identity() for p in PROCESSES.values()}
    assert len(identities) == len(PROCESSES)
    assert vp().identity() == vp().identity()


@pytest.mark.parametrize(
    ("signal", "noise"),
    [
        (lambda t: 1.0, lambda t: 1.0),  # constant
        (lambda t: 1.0, lambda t: 1.0 - t / 2),  # falling
        (lambda t: 1.0, lambda t: math.sin(4 * t)),  # rising, then falling
        (lambda t: 1.0 - 2 * t, lambda t: t),  # a signal below 0
        (lambda t: t, lambda t: t),  # both rise alike
        (lambda t: 1.0, lambda t: math.nan),
    ],
)
def test_a_process_whose_ratio_does_not_rise_is_refused(signal, noise):
    with pytest.raises(Refused, match="process odd: noise/signal must rise strictly"):
        Continuous("odd", signal, noise)


def test_an_impossible_range_is_refused():
    for first, T in ((0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (0.1, math.inf)):
        with pytest.raises(Refused, match="needs 0 < first < T"):
            Continuous("odd", lambda t: 1.0, lambda t: t, T=T, first=first)
    with pytest.raises(Refused, match="needs 0 < first < T"):
        edm(sigma_min=5.0, sigma_max=1.0)


def test_half_log_snr_is_the_log_of_the_ratio():
    assert half_log_snr(edm().at(2.0)) == pytest.approx(-math.log(2.0))
    assert half_log_snr(flow().at(0.0)) == math.inf and half_log_snr(flow().at(1.0)) == -math.inf
