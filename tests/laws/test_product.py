"""The whole product of prediction, schedule, spacing, steps, eta, solver and precision: finite, or refused in advance.

In advance: before the network is asked once. A sample of the product in the usual suite, more of it by `make faults`.
"""

import itertools
import random
import warnings

import pytest
import torch
from torch import nn

import ddim
from ddim.model import Model, Overflowed
from ddim.process import SPACINGS
from ddim.refused import Refused
from ddim.solve import SOLVERS

SCHEDULES = [
    (name, T, zero) for name in ("linear", "scaled_linear", "cosine", "sigmoid") for T in (10, 1000) for zero in (0, 1)
]
PRODUCT = {
    "prediction": ("eps", "x0", "v"), "schedule": tuple(SCHEDULES), "spacing": tuple(SPACINGS), "steps": (1, 2, 7, 20),
    "eta": (0.0, 0.0, 0.0, 0.5, 1.0, 1.5), "solver": tuple(SOLVERS), "precision": ("fp32", "bf16", "fp16", "fp64"),
    "clip": (None, True),
}  # fmt: skip


class Exact(nn.Module):
    """What a perfect network says of Gaussian data N(0.2, 0.25), and how often it was asked."""

    def __init__(self, schedule, prediction):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("alpha_bar", schedule.alpha_bar.clone())
        self.prediction, self.asked = prediction, 0

    def forward(self, x, t):
        self.asked += 1
        square = self.alpha_bar[t.long() + 1].double().view(-1, 1, 1, 1)
        signal, noise, wide = square.sqrt(), (1 - square).sqrt(), x.double()
        x0 = 0.2 + 0.25 * signal / (0.25 * square + 1 - square) * (wide - 0.2 * signal)
        eps = noise * (wide - 0.2 * signal) / (0.25 * square + 1 - square)
        said = {"eps": eps, "x0": x0, "v": signal * eps - noise * x0}[self.prediction]
        return (said * self.scale).to(x.dtype)


def outcome(prediction, schedule, spacing, steps, eta, solver, precision, clip):
    """ "refused" or "made"; anything else fails."""
    name, T, zero = schedule
    table = getattr(ddim.Schedule, name)(T)
    table = table.zero_terminal_snr() if zero else table
    network = Exact(table, prediction)
    try:
        model = Model.from_network(network, table, shape=(1, 2, 2), prediction=prediction)
        sampler = model.sampler(steps=steps, spacing=spacing, eta=eta, solver=solver, precision=precision, clip=clip)
        sampler.rehearse()
    except Refused:
        assert network.asked == 0
        return "refused"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Overflowed)
        x = sampler.sample([0, 1, 2])
    assert bool(x.isfinite().all()), "not finite"
    return "made"


def found_in(n, seed):
    """How n combinations end; each once."""
    rng, ends = random.Random(seed), []
    for _ in range(n):
        case = {name: rng.choice(values) for name, values in PRODUCT.items()}
        try:
            ends.append(outcome(**case))
        except Exception as error:
            raise AssertionError(f"{case}: {error!r}") from error
    return ends


def test_a_sample_of_the_product_is_finite_or_refused_in_advance():
    ends = found_in(150, seed=1)
    assert ends.count("made") > 20 and ends.count("refused") > 20


@pytest.mark.faults
def test_the_product_is_finite_or_refused_in_advance():
    ends = found_in(20_000, seed=2)
    assert ends.count("made") > 5000


@pytest.mark.parametrize(("prediction", "solver"), list(itertools.product(("eps", "x0", "v"), ("ddim", "dpm++2m"))))
def test_each_spacing_of_the_usual_schedule_is_walked(prediction, solver):
    """The sample may not be of refusals alone: what people use is made."""
    for spacing in ("uniform", "quadratic", "trailing", "leading", "logsnr"):
        how = {"spacing": spacing, "steps": 20, "eta": 0.0, "solver": solver, "precision": "fp32", "clip": None}
        assert outcome(prediction, ("linear", 1000, 0), **how) == "made"
