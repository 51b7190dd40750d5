import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDIMScheduler

from ddim import Schedule, tau
from ddim.process import SPACINGS

EXACT = ["uniform", "quadratic", "logsnr", "trailing", "leading", "linspace", "paper-linear", "paper-quadratic"]
PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "gaussian.json").read_text())["tau_1based"]


@pytest.mark.parametrize("spacing", EXACT)
def test_every_number_of_steps_gives_exactly_that_many_distinct_steps(spacing):
    for T in (1, 2, 10, 97, 1000):
        for steps in range(1, T + 1) if T < 1000 else (*range(1, 120), 333, 501, 600, 998, 999, 1000):
            times = tau(T, steps, spacing)
            assert len(times) == steps + 1 and times[-1] == 0 and times[-2] >= 1 and times[0] <= T, (T, steps)
            assert all(t > s for t, s in pairwise(times)), (T, steps)
            if spacing in ("uniform", "quadratic", "logsnr", "linspace") and steps > 1:
                assert times[0] == T and times[-2] == 1, (T, steps)


def test_uniform_and_quadratic_for_every_S_of_1000():
    for steps in range(1, 1001):
        for spacing in ("uniform", "quadratic"):
            times = tau(1000, steps, spacing)
            assert len(set(times)) == len(times) == steps + 1
            assert times[0] == 1000 and (times[-2] == 1 or steps == 1)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("ermongroup-uniform", "ermon_uniform"), ("ermongroup-quad", "ermon_quad"), ("paper-linear", "paper_linear"),
     ("linspace", "linspace_1_T")],
)  # fmt: skip
def test_sequences_printed_by_other_programs(ours, theirs):
    for steps, times in PUBLISHED[theirs].items():
        assert tau(1000, int(steps), ours) == (*sorted(set(times), reverse=True), 0)


def test_paper_quadratic_is_the_formula_where_it_gives_distinct_times():
    for steps in (10, 20):  # the formula repeats itself from S = 32 on
        assert tau(1000, steps, "paper-quadratic") == (*reversed(PUBLISHED["paper_quad_clamped"][str(steps)]), 0)
    formula = [math.floor(1000 / 50**2 * i * i) for i in range(1, 51)]  # 0, 1, 3, 6, ...: 0 is no time, so two move up
    assert tau(1000, 50, "paper-quadratic") == (*reversed([1, 2, *formula[2:]]), 0)


def test_ermongroup_quirks_are_kept():
    assert tau(1000, 30, "ermongroup-uniform") == (*range(991, 0, -33), 0)  # 31 steps where 30 were asked for
    assert len(tau(1000, 600, "ermongroup-uniform")) == 1001
    assert tau(1000, 1, "ermongroup-uniform") == (1, 0)
    for steps, unique in ((10, 10), (50, 49), (100, 96), (300, 272), (1000, 688)):  # what the official code walks
        times = tau(1000, steps, "ermongroup-quad")
        assert len(times) == unique + 1 and times[0] == 801
        reference = {int(s) + 1 for s in np.linspace(0, np.sqrt(800), steps) ** 2}
        assert set(times) - {0} == reference


def test_openai_takes_the_first_stride_and_exists_for_62_of_1000():
    for steps in (10, 25, 50, 250, 1000):
        stride = next(i for i in range(1, 1000) if len(range(0, 1000, i)) == steps)
        assert tau(1000, steps, "openai") == (*[t + 1 for t in reversed(range(0, 1000, stride))], 0)
    possible = 0
    for steps in range(1, 1001):
        try:
            tau(1000, steps, "openai")
            possible += 1
        except ValueError as error:
            assert str(steps) in str(error) and "1000" in str(error)
    assert possible == 62  # peers.md section 2.3


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [2, 5, 7, 10, 13, 50, 100, 250, 999, 1000])
def test_equals_diffusers_own_timesteps(spacing, steps):
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    assert tau(1000, steps, spacing) == (*[int(t) + 1 for t in scheduler.timesteps], 0)


def test_trailing_where_diffusers_returns_one_step_too_many():
    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
    scheduler.set_timesteps(61)
    assert len(scheduler.timesteps) == 62 and int(scheduler.timesteps[-1]) == -1  # the peer's defect
    assert tau(1000, 61, "trailing")[:-1] == tuple(int(t) + 1 for t in scheduler.timesteps[:-1])


def test_logsnr_steps_are_even_in_logsnr():
    """Each time is the one nearest to its even share; on this schedule none has to be pushed apart."""
    schedule = Schedule.linear(1000)
    times = tau(1000, 8, "logsnr", alpha_bar=schedule.alpha_bar.tolist())
    table = schedule.alpha_bar[1:]
    logsnr = (table / (1 - table)).log()
    for i, t in enumerate(reversed(times[:-1])):
        goal = logsnr[0] + (logsnr[-1] - logsnr[0]) * i / 7
        assert abs(logsnr[t - 1] - goal) == (logsnr - goal).abs().min()


def test_logsnr_reads_the_schedule_and_survives_zero_terminal_snr():
    zero = Schedule.linear().zero_terminal_snr()
    times = tau(1000, 10, "logsnr", alpha_bar=zero.alpha_bar.tolist())
    assert times[0] == 1000 and times[-2:] == (1, 0) and len(times) == 11
    linear = Schedule.linear().alpha_bar.tolist()
    assert tau(1000, 10, "logsnr") == tau(1000, 10, "logsnr", alpha_bar=linear)
    assert tau(1000, 10, "logsnr", alpha_bar=Schedule.cosine().alpha_bar.tolist()) != tau(1000, 10, "logsnr")


def test_leading_offset_shifts_by_one_as_stable_diffusion_does():
    assert tau(1000, 50, "leading", offset=1)[:2] == (982, 962)
    with pytest.raises(ValueError, match=r"1001, above T = 1000"):
        tau(1000, 1000, "leading", offset=1)


def test_explicit_sequences():
    assert tau(1000, None, (981, 640, 1, 0)) == (981, 640, 1, 0)
    assert tau(1000, 3, [1000, 500, 7, 0]) == (1000, 500, 7, 0)


@pytest.mark.parametrize(
    ("steps", "spacing", "says"),
    [
        (0, "uniform", "T = 1000, got steps = 0"),
        (1001, "uniform", "T = 1000, got steps = 1001"),
        (-3, "trailing", "-3"),
        (None, "uniform", "None"),
        (10, "nonsense", "nonsense.*uniform"),
        (None, (500, 500, 0), "500 is followed by 500"),
        (None, (500, 600, 0), "500 is followed by 600"),
        (None, (500, 100), "end at 0"),
        (None, (1001, 0), "1001, above T = 1000"),
        (3, (500, 0), "steps = 3.*1 steps"),
        (None, (500.5, 0), "whole"),
    ],
)
def test_impossible_requests_are_refused_with_both_numbers(steps, spacing, says):
    with pytest.raises(ValueError, match=says):
        tau(1000, steps, spacing)


def test_every_name_is_offered():
    assert set(EXACT) | {"ermongroup-uniform", "ermongroup-quad", "openai"} == set(SPACINGS)
