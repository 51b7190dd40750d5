"""Half precision that is too small for an image is noticed: the image is made anew in fp32, and that is said."""

import warnings

import pytest
import torch
from torch import nn

from ddim import Schedule
from ddim.jobs import generate, open_job
from ddim.model import Model, Overflowed
from ddim.refused import Refused


class Steep(nn.Module):
    """eps = x, by way of numbers of x times a million: beyond fp16's 65504 where |x| is above `least`."""

    def __init__(self, least=1.8):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(60000.0 / least))

    def forward(self, x, t):
        return x * self.factor / self.factor


SEEDS = range(8)


def model(network):
    return Model.from_network(network, Schedule.linear(100), shape=(1, 3, 3), prediction="eps")


def test_images_that_overflow_are_those_of_fp32_and_the_others_stay():
    made = model(Steep())
    exact = made.sample(seeds=SEEDS, steps=5, precision="fp32")
    plain = made.sampler(steps=5, precision="fp16")
    *_, last = plain.trajectory(SEEDS)
    lost = ~last.x.isfinite().flatten(1).all(1)
    assert 0 < int(lost.sum()) < len(SEEDS)  # else nothing is tested
    with pytest.warns(Overflowed, match=rf"{int(lost.sum())} of 8 images overflowed in fp16 and .* in fp32"):
        x = plain.sample(SEEDS)
    assert torch.equal(x[lost], exact[lost]) and torch.equal(x[~lost], last.x[~lost])


def test_nothing_is_said_where_nothing_overflows():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = model(Steep(least=40.0)).sample(seeds=SEEDS, steps=5, precision="fp16")
    assert bool(x.isfinite().all())


def test_what_fp32_cannot_hold_either_is_refused_by_a_job(tmp_path):
    broken = model(Steep())
    broken.checkpoint.network.module.factor.data.fill_(float("nan"))
    sampler = broken.sampler(steps=2, precision="fp16")
    out = open_job(tmp_path / "out", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing was made anew, so nothing is said of it
        with pytest.raises(Refused, match="not finite"):
            list(generate(sampler.sample, [0, 1], out, {}, batch_size=2))
