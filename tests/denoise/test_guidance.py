"""Guidance against the closed form for Gaussians of one covariance, where it only moves the mean."""

import pytest
import torch

from ddim import GaussianDenoiser, Schedule
from ddim.denoise import NONE, Conditions, Denoiser, Guided, labels
from ddim.process import Prediction

SCHEDULE = Schedule.linear(1000)
MEANS = torch.tensor([-0.5, 0.2, 0.7, 0.0], dtype=torch.float64)  # three classes; the fourth label is "no class"
NULL = 3


class PerLabel(Denoiser):
    """Data N(mean of the label, 0.25): label int64 (B,), or float weights (B, 4) that mix the means."""

    process, invertible = SCHEDULE, True

    def __init__(self):
        self.calls = []

    def __call__(self, x_t, t, conditions=NONE):
        label = conditions.per_image["label"]
        self.calls.append((len(x_t), label, conditions.per_image.get("extra")))
        means = (label @ MEANS if label.is_floating_point() else MEANS[label]).tolist()
        times = [t] * len(x_t) if isinstance(t, int) else t.tolist()
        rows = [GaussianDenoiser(SCHEDULE, m, 0.25)(x[None], int(s)) for x, m, s in zip(x_t, means, times, strict=True)]
        return Prediction(torch.cat([r.x0 for r in rows]), torch.cat([r.eps for r in rows]))


def points(n=3):
    return torch.linspace(-2, 2, n * 5, dtype=torch.float64).view(n, 5)


LABEL = torch.tensor([0, 1, 2])
TOLD = labels(LABEL)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("t", [1, 400, 1000])
def test_guidance_moves_the_mean_of_a_gaussian(weight, t):
    p = Guided(PerLabel(), weight, NULL)(points(), t, TOLD)
    for i, label in enumerate(LABEL.tolist()):
        mean = float(MEANS[NULL] + weight * (MEANS[label] - MEANS[NULL]))
        expected = GaussianDenoiser(SCHEDULE, mean, 0.25)(points()[i : i + 1], t)
        torch.testing.assert_close(p.eps[i : i + 1], expected.eps, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(p.x0[i : i + 1], expected.x0, rtol=1e-9, atol=1e-9)


def test_one_call_of_twice_the_rows_and_conditions_follow():
    inner, extra = PerLabel(), torch.arange(3.0)
    Guided(inner, 2.0, NULL)(points(), 500, Conditions({"label": LABEL, "extra": extra}))
    ((rows, label, seen),) = inner.calls
    assert rows == 6
    assert label.tolist() == [0, 1, 2, 3, 3, 3]
    assert seen.tolist() == [0, 1, 2, 0, 1, 2]


def test_mixed_labels_get_a_null_row_of_weights():
    inner = PerLabel()
    weights = torch.tensor([[0.5, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]], dtype=torch.float64)
    p = Guided(inner, 2.0, NULL)(points(), 500, labels(weights))
    assert inner.calls[0][1][3:].tolist() == [[0, 0, 0, 1]] * 3
    by_index = Guided(PerLabel(), 2.0, NULL)(points(), 500, TOLD)
    torch.testing.assert_close(p.eps[1:], by_index.eps[1:])


@pytest.mark.parametrize("t", [700, torch.tensor([700, 1, 20])])
@pytest.mark.parametrize("rescale", [0.0, 0.5, 1.0])
def test_the_pair_stays_consistent(t, rescale):
    x = points()
    p = Guided(PerLabel(), 4.0, NULL, rescale)(x, t, TOLD)
    level = SCHEDULE.at_batch(torch.tensor([t] * 3) if isinstance(t, int) else t, x)
    torch.testing.assert_close(level.signal * p.x0 + level.noise * p.eps, x, rtol=1e-9, atol=1e-9)


def test_full_rescale_gives_the_conditional_standard_deviation_and_half_is_between():
    class Stretched(PerLabel):
        """x0 whose spread depends on the label, so that guidance changes it."""

        def __call__(self, x_t, t, conditions=NONE):
            spread = torch.tensor([1.0, 1.5, 2.0, 0.5], dtype=torch.float64)[conditions.per_image["label"]][:, None]
            at = SCHEDULE.at(t)
            return Prediction(x_t * spread, (x_t - at.signal * x_t * spread) / at.noise)

    x = points()
    conditional = Stretched()(x, 500, TOLD).x0.std(1)
    plain = Guided(Stretched(), 3.0, NULL)(x, 500, TOLD).x0.std(1)
    full = Guided(Stretched(), 3.0, NULL, 1.0)(x, 500, TOLD).x0.std(1)
    half = Guided(Stretched(), 3.0, NULL, 0.5)(x, 500, TOLD).x0.std(1)
    assert bool((plain > 1.2 * conditional).all())
    torch.testing.assert_close(full, conditional)
    torch.testing.assert_close(half, (conditional + plain) / 2)


def test_outside_the_interval_it_is_the_conditional_network_alone():
    inner = PerLabel()
    guided = Guided(inner, 3.0, NULL, interval=(100, 600))
    for t, on in [(99, False), (100, True), (600, True), (601, False)]:
        inner.calls.clear()
        p = guided(points(), t, TOLD)
        expected = (Guided(PerLabel(), 3.0, NULL) if on else PerLabel())(points(), t, TOLD)
        assert torch.equal(p.eps, expected.eps)
        assert inner.calls[0][0] == (6 if on else 3)
    times = torch.tensor([99, 300, 601])
    mixed = guided(points(), times, TOLD)
    for i, t in enumerate(times.tolist()):
        torch.testing.assert_close(mixed.eps[i], guided(points(), t, TOLD).eps[i])


def test_at_the_clean_end_x0_is_the_image():
    class AtZero(PerLabel):
        def __call__(self, x_t, t, conditions=NONE):
            return Prediction(x_t, torch.ones_like(x_t) * MEANS[conditions.per_image["label"]][:, None])

    for t in (0, torch.zeros(3, dtype=torch.int64)):
        p = Guided(AtZero(), 3.0, NULL, 0.7)(points(), t, TOLD)
        torch.testing.assert_close(p.x0, points(), rtol=1e-14, atol=1e-14)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match=r"rescale.*1\.5"):
        Guided(PerLabel(), 2.0, NULL, 1.5)
    with pytest.raises(ValueError, match="interval"):
        Guided(PerLabel(), 2.0, NULL, interval=(600, 100))
    with pytest.raises(ValueError, match="label"):
        Guided(PerLabel(), 2.0, NULL)(points(), 500)
