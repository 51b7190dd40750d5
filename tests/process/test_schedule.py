import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from ddim import Schedule

# alpha_bar of the linear schedule, printed by an independent program
PUBLISHED = json.loads((Path(__file__).parents[1] / "data" / "gaussian.json").read_text())["schedule"]["abar"]


def test_linear_has_the_published_values():
    schedule = Schedule.linear(1000)
    for t, value in PUBLISHED.items():
        assert float(schedule.alpha_bar[int(t)]) == pytest.approx(value, rel=1e-12)
    assert schedule.T == 1000 and len(schedule.alpha_bar) == 1001 and schedule.alpha_bar.dtype == torch.float64


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Schedule.linear(1000), {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}),
        (Schedule.scaled_linear(1000), {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        (Schedule.cosine(1000), {"beta_schedule": "squaredcos_cap_v2"}),
        (Schedule.sigmoid(1000), {"beta_schedule": "sigmoid", "beta_start": 1e-4, "beta_end": 0.02}),
        (
            Schedule.scaled_linear(1000).zero_terminal_snr(),
            {
                "beta_schedule": "scaled_linear",
                "beta_start": 0.00085,
                "beta_end": 0.012,
                "rescale_betas_zero_snr": True,
            },
        ),
    ],
    ids=["linear", "scaled_linear", "cosine", "sigmoid", "zero-snr"],
)
def test_equals_diffusers_to_its_float32(ours, theirs):
    reference = DDPMScheduler(num_train_timesteps=1000, **theirs).alphas_cumprod.double()
    torch.testing.assert_close(ours.alpha_bar[1:], reference, rtol=2e-4, atol=1e-7)


def test_cosine_end_and_definition():
    schedule = Schedule.cosine(1000)
    assert float(schedule.alpha_bar[1000]) == pytest.approx(2.4287669070348567e-09, rel=1e-9)

    def f(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    assert float(schedule.alpha_bar[400]) == pytest.approx(f(0.4) / f(0), rel=1e-12)  # eq. 17; no cap yet


@pytest.mark.parametrize("make", [Schedule.linear, Schedule.scaled_linear, Schedule.cosine, Schedule.sigmoid])
def test_signal_and_noise_lie_on_the_circle(make):
    schedule = make(200)
    for t in range(201):
        level = schedule.at(t)
        assert level.signal**2 + level.noise**2 == pytest.approx(1.0, abs=1e-15)
        assert level.alpha_bar == pytest.approx(float(schedule.alpha_bar[t]), rel=1e-14)
    assert schedule.at(0) == (1.0, 0.0)


def test_at_batch_broadcasts_and_agrees_with_at():
    schedule = Schedule.linear()
    level = schedule.at_batch(torch.tensor([0, 7, 1000]), torch.zeros(3, 2, 4, 4, dtype=torch.float64))
    assert level.signal.shape == (3, 1, 1, 1)
    assert level.signal.flatten().tolist() == [schedule.at(t).signal for t in (0, 7, 1000)]
    assert level.noise.flatten().tolist() == [schedule.at(t).noise for t in (0, 7, 1000)]


def test_zero_terminal_snr_keeps_the_first_and_zeroes_the_last():
    schedule = Schedule.linear()
    rescaled = schedule.zero_terminal_snr()
    assert rescaled.has_zero_terminal_snr and not schedule.has_zero_terminal_snr
    assert float(rescaled.alpha_bar[1]) == pytest.approx(float(schedule.alpha_bar[1]), rel=1e-15)
    root, new = schedule.alpha_bar[1:].sqrt(), rescaled.alpha_bar[1:].sqrt()
    slope = (new[500] - new[200]) / (root[500] - root[200])  # the map on sqrt(alpha_bar) is one straight line
    torch.testing.assert_close(new, slope * (root - root[-1]), rtol=1e-12, atol=1e-15)


def test_from_betas_and_back():
    betas = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    schedule = Schedule.from_betas(betas)
    np.testing.assert_allclose(schedule.alpha_bar, [1.0, 0.9, 0.45, 0.0], rtol=1e-15)
    torch.testing.assert_close(schedule.betas(), betas)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([0.9, 0.5], "exactly 1"),
        ([1.0], "at least 2"),
        ([1.0, 0.5, 0.5], r"fall strictly.*alpha_bar\[2\]"),
        ([1.0, 0.5, 0.6], "0.6"),
        ([1.0, 0.5, -0.1], "negative"),
        ([1.0, float("nan")], "not finite"),
        ([[1.0, 0.5]], "shape"),
    ],
)
def test_bad_tables_are_refused(table, says):
    with pytest.raises(ValueError, match=says):
        Schedule(table)


def test_bad_betas_and_times_are_refused():
    with pytest.raises(ValueError, match=r"beta_2 = 1.5"):
        Schedule.from_betas([0.1, 1.5])
    with pytest.raises(ValueError, match=r"beta_1 = 0.0"):
        Schedule.from_betas([0.0, 0.5])
    with pytest.raises(ValueError, match=r"1001 is outside 0\.\.1000"):
        Schedule.linear().at(1001)
    with pytest.raises(ValueError, match="-1"):
        Schedule.linear().at(-1)
    with pytest.raises(ValueError, match="-1 to 3, outside"):
        Schedule.linear().at_batch(torch.tensor([3, -1]), torch.zeros(2, 1))


def test_frozen_and_independent_of_the_callers_table():
    table = torch.tensor([1.0, 0.5], dtype=torch.float64)
    schedule = Schedule(table)
    table[1] = 0.9
    assert float(schedule.alpha_bar[1]) == 0.5
    with pytest.raises(AttributeError):
        schedule.alpha_bar = table
    assert schedule == Schedule([1.0, 0.5]) and schedule != Schedule([1.0, 0.6])
