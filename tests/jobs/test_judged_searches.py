"""Guidance and hand-overs chosen by images: on Gaussians, where the best weight and what is lost are known."""

import pytest
import torch
from test_evaluate import PIXELS, SCHEDULE, VARIANCE, real_images, sampler, variance_of

from ddim import GaussianDenoiser
from ddim.denoise import Autoguided, Stitched
from ddim.jobs import Cell, Judge, RealSets, TunedGuidance, TunedHandOver, tune_guidance, tune_handover

CELL = Cell("ddim", 0.0, 9, "uniform")
REAL = real_images(1000)  # of mean 0.1


@pytest.fixture
def judge(tmp_path):
    data = RealSets.of(REAL, None, 300, 10_000)
    return Judge.of(data, PIXELS, 300, num_classes=None, batch_size=300, folder=tmp_path / "cells")


def oracle(mean, variance=VARIANCE):
    return GaussianDenoiser(SCHEDULE, mean, variance)


def guided(weight, interval):
    """Model at mean 0, guide at -0.1, the data at 0.1: with one variance, weight 2 everywhere is exact."""
    denoise = Autoguided(oracle(0.0), oracle(-0.1), weight, interval)
    return sampler(denoise, CELL, guidance=weight, interval=interval)


def test_the_weight_that_theory_says_is_found_and_checked(judge):
    *news, found = tune_guidance(guided, CELL, judge, trials=6)
    assert isinstance(found, TunedGuidance) and len(news) == len(found.tried) + 1 <= 17 + 6 + 1
    assert len({(one.weight, one.interval) for one in found.tried}) == len(found.tried)
    plain, best = found.finalists[0], found.chosen
    shrunk = 4 * (variance_of(CELL) ** 0.5 - VARIANCE**0.5) ** 2  # what so few steps lose, whatever the mean
    assert plain.weight == 1.0 and plain.seen.distance - shrunk == pytest.approx(4 * 0.1**2, rel=0.2)
    assert min(found.tried, key=lambda one: one.seen.distance).interval in [one.interval for one in found.finalists]
    assert best.unseen.distance == min(one.unseen.distance for one in found.finalists)
    assert abs(best.unseen.distance - shrunk) < 0.1 * (plain.unseen.distance - shrunk)
    # the best of those that guide everywhere is the weight of theory; shorter intervals need more weight
    whole = min((one for one in found.tried if one.interval is None), key=lambda one: one.seen.distance)
    assert whole.weight == 2.0
    for one in found.tried:
        assert one.seen.nfe == 9 + (0 if one.weight == 1.0 else sum(_in(t, one.interval) for t in one.seen.tau[:-1]))
    assert all(seed >= 1_000_000 for seed in [*judge.seen, *judge.unseen]) and not set(judge.seen) & set(judge.unseen)


def _in(t, interval):
    return interval is None or interval[0] <= t <= interval[1]


def test_guidance_that_does_not_help_is_not_chosen(judge):
    """The model is right already: every weight leads away from the data."""

    def away(weight, interval):
        return sampler(
            Autoguided(oracle(0.1), oracle(-0.5), weight, interval), CELL, guidance=weight, interval=interval
        )

    *_, found = tune_guidance(away, CELL, judge, trials=0)
    assert found.chosen.weight == 1.0 and found.chosen is found.finalists[0] and len(found.finalists) >= 2


def test_a_search_goes_on_where_it_stopped(judge):
    job = tune_guidance(guided, CELL, judge, trials=3)
    first = [next(job) for _ in range(5)]
    made = {p: p.stat().st_mtime_ns for p in judge.work["folder"].glob("*")}
    again = tune_guidance(guided, CELL, judge, trials=3)
    assert [next(again) for _ in range(5)] == first
    assert {p: p.stat().st_mtime_ns for p in judge.work["folder"].glob("*")} == made


@pytest.mark.parametrize(("small", "most"), [(0.1, 1), (0.6, 9)], ids=["as good", "worse"])
def test_the_cheapest_hand_over_that_costs_nothing_is_chosen(judge, small, most):
    """A small network that is as good takes nearly all; one with another mean harms the more, the longer it serves."""
    early, late = oracle(small), oracle(0.1)

    def stitched(at):
        return sampler(Stitched(early, late, at), CELL, early="small", at=at)

    alone = sampler(early, CELL, early="alone")
    *news, found = tune_handover(stitched, alone, CELL, judge, (1, 4))
    assert isinstance(found, TunedHandOver) and len(news) == len(found.tried) + 1
    assert [(one.at, one.early + one.late) for one in (found.tried[0], found.tried[-1])] == [(1000, 9), (None, 9)]
    assert [one.early for one in found.tried] == sorted(one.early for one in found.tried)
    for one in found.tried:
        assert one.cost == pytest.approx((one.early + 4 * one.late) / 36)
        assert one.early == sum(one.at is None or t > one.at for t in one.seen.tau[:-1])
    whole = found.tried[0]
    if small == 0.1:
        assert found.chosen.late == most and found.chosen.unseen is not None
    else:
        assert found.tried[-1].seen.distance > 4 * 0.4**2 and found.chosen.early < 9 - most / 2
        assert found.chosen.unseen.distance <= whole.unseen.distance * 1.5


def test_operations_are_those_of_the_convolutions():
    from torch import nn

    from ddim import engine

    conv, x = nn.Conv2d(3, 5, 3, padding=1), torch.zeros(2, 3, 8, 8)
    assert engine.operations(lambda: conv(x)) == 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    q = torch.zeros(1, 2, 7, 4)
    attended = engine.operations(lambda: nn.functional.scaled_dot_product_attention(q, q, q))
    assert attended == 2 * 2 * (2 * 7 * 7 * 4)
