"""tau on continuous processes: real numbers, S + 1 of them, falling, from T to the clean image."""

import math
from itertools import pairwise

import pytest

import ddim
from ddim import Refused, Schedule, tau
from ddim.process import SPACINGS, edm, flow, subvp, ve, vp

PROCESSES = {"ve": ve(), "edm": edm(), "flow": flow(), "vp": vp(), "subvp": subvp()}
REAL = ["uniform", "trailing", "quadratic", "logsnr", "edm"]


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize("spacing", REAL)
def test_steps_and_one_entries_falling_from_T_to_the_image(process, spacing):
    for S in (1, 2, 3, 4, 7, 50, 300):
        times = tau(process, S, spacing)
        assert len(times) == S + 1 and times[0] == process.T and times[-1] == 0.0
        assert all(isinstance(t, float) for t in times)
        assert all(t > s for t, s in pairwise(times))
        if S > 1 and spacing != "trailing":
            assert times[-2] == process.first


@pytest.mark.parametrize("S", [2, 18, 40])
@pytest.mark.parametrize("ends", [(0.002, 80.0), (0.01, 5.0)])
def test_edm_spacing_is_equation_5(S, ends):
    """sigma_i = (sigma_max^(1/7) + i/(S-1) (sigma_min^(1/7) - sigma_max^(1/7)))^7, sigma_S = 0 (arXiv 2206.00364)."""
    low, high = ends[0] ** (1 / 7), ends[1] ** (1 / 7)
    expected = [(high + i / (S - 1) * (low - high)) ** 7 for i in range(S)] + [0.0]
    assert tau(edm(*ends), S, "edm") == pytest.approx(expected, rel=1e-12)


def test_edm_spacing_of_other_processes_is_even_in_their_noise_to_signal():
    for process in (ve(), vp(), subvp()):
        levels = [process.at(t) for t in tau(process, 12, "edm")[:-1]]
        roots = [(at.noise / at.signal) ** (1 / 7) for at in levels]
        assert [a - b for a, b in pairwise(roots)] == pytest.approx([(roots[0] - roots[-1]) / 11] * 11, rel=1e-9)


@pytest.mark.parametrize("process", [ve(), edm(), vp(), subvp()], ids=lambda p: p.name)
def test_logsnr_spacing_is_even_in_log_noise_to_signal(process):
    levels = [process.at(t) for t in tau(process, 9, "logsnr")[:-1]]
    logs = [math.log(at.noise / at.signal) for at in levels]
    assert [a - b for a, b in pairwise(logs)] == pytest.approx([(logs[0] - logs[-1]) / 8] * 8, rel=1e-9)


@pytest.mark.parametrize("spacing", ["logsnr", "edm"])
def test_where_T_has_no_signal_the_times_after_it_are_even(spacing):
    """flow: T = 1, then from as little signal as `first` has noise."""
    times = tau(flow(), 10, spacing)
    assert times[0] == 1.0 and times[1] == pytest.approx(1.0 - flow().first, rel=1e-9)
    ratios = [t / (1 - t) for t in times[1:-1]]
    even = [math.log(r) if spacing == "logsnr" else r ** (1 / 7) for r in ratios]
    assert [a - b for a, b in pairwise(even)] == pytest.approx([(even[0] - even[-1]) / 8] * 8, rel=1e-8)


def test_even_and_squared_times():
    assert tau(flow(), 4, "trailing") == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert tau(flow(), 3) == pytest.approx((1.0, 0.5005, 0.001, 0.0))
    assert tau(edm(), 3, "quadratic") == pytest.approx((80.0, 0.002 + 79.998 / 4, 0.002, 0.0))


def test_sequences_are_checked_and_returned():
    assert tau(edm(), None, [80, 2.5, 0]) == (80.0, 2.5, 0.0) == tau(edm(), 2, (80, 2.5, 0.0))
    assert tau(flow(), None, [0.5, 0.25, 0]) == (0.5, 0.25, 0.0)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: tau(edm(), 0), "steps must be at least 1, got steps = 0"),
        (lambda: tau(edm()), "got steps = None"),
        (lambda: tau(edm(), 5, "openai"), "unknown spacing 'openai' for real times; choose one of uniform"),
        (lambda: tau(edm(), 5, offset=1), "offset and alpha_bar are of schedules"),
        (lambda: tau(edm(), None, [80.0, 1.0]), "must end at 0"),
        (lambda: tau(edm(), None, [0.0]), "at least one step"),
        (lambda: tau(edm(), None, [1.0, 1.0, 0.0]), "must fall strictly, but 1.0 is followed by 1.0"),
        (lambda: tau(edm(), None, [81.0, 0.0]), r"outside 0\.\.80"),
        (lambda: tau(edm(), 3, [80.0, 1.0, 0.0]), "steps = 3, but the explicit times make 2 steps"),
        (lambda: tau(Schedule.linear(), 5, "edm"), "unknown spacing 'edm'"),
    ],
)
def test_senseless_requests(ask, says):
    with pytest.raises(Refused, match=says):
        ask()


@pytest.mark.parametrize("spacing", [s for s in SPACINGS if s != "logsnr"])
def test_a_schedule_gives_the_whole_numbers_of_its_T(spacing):
    schedule = Schedule.cosine(1000)
    assert ddim.tau(schedule, 10, spacing) == ddim.tau(1000, 10, spacing)
    assert all(type(t) is int for t in ddim.tau(schedule, 10, spacing))


def test_logsnr_of_a_schedule_is_of_its_own_table():
    cosine = Schedule.cosine(1000)
    assert tau(cosine, 10, "logsnr") == tau(1000, 10, "logsnr", alpha_bar=cosine.alpha_bar.tolist())
    assert tau(cosine, 10, "logsnr") != tau(1000, 10, "logsnr")
    assert tau(Schedule.linear(), None, (1000, 4, 0)) == (1000, 4, 0)
