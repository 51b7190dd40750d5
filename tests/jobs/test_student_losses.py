"""The losses of students on a mixture of two modes, where the whole flow is known: it keeps quantiles."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import ddim
from ddim.data import Batch, TensorBatches
from ddim.denoise import Consistent
from ddim.jobs.distil import Consistency, Progressive, StudentRecipe
from ddim.jobs.train import fit, state_of
from ddim.nets import torch_randomness
from ddim.process import flow
from ddim.solve import solver_named

PROCESS = flow()
WEIGHTS, MEANS, STD = (0.4, 0.6), (-1.0, 1.0), 0.3
TEACHER = ddim.MixtureDenoiser(PROCESS, WEIGHTS, MEANS, STD**2)
X_T = torch.linspace(-2.2, 2.2, 89, dtype=torch.float32)[:, None]


def normal_cdf(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def closed_form(x_T):
    """On one dimension the flow is rising, so it keeps quantiles: x_0 = F^-1(Phi(x_T)); F is inverted on a grid."""
    x0 = torch.linspace(-3, 3, 20001, dtype=torch.float64)
    cdf = sum(w * normal_cdf((x0 - m) / STD) for w, m in zip(WEIGHTS, MEANS, strict=True))
    return torch.from_numpy(np.interp(normal_cdf(x_T.double()).numpy(), cdf.numpy(), x0.numpy())).float()


class Net(nn.Module):
    """x0 of x_t and t, one number each."""

    def __init__(self):
        super().__init__()
        with torch_randomness(0, "weights"):
            self.body = nn.Sequential(nn.Linear(3, 96), nn.SiLU(), nn.Linear(96, 96), nn.SiLU(), nn.Linear(96, 1))

    def forward(self, x, t):
        t = t[:, None].to(x)
        return self.body(torch.cat([x, t, 4 * t * x], 1))


def read(network):
    return ddim.NetworkDenoiser(network, PROCESS, "x0")


@pytest.fixture(scope="module")
def batches():
    x0 = ddim.noise(range(4096), (1,), purpose="data") * STD
    side = ddim.process.generator(0, "side").random(4096) < WEIGHTS[0]
    return TensorBatches(x0 + torch.where(torch.from_numpy(side), MEANS[0], MEANS[1])[:, None].float(), 128)


def student(network, loss, recipe, batches):
    state = state_of(copy.deepcopy(network), recipe.stage(0), "cpu")
    for _ in fit(state, batches, loss, max_steps=recipe.updates):
        pass
    return read(state.unwrapped)


def error(denoise, tau, **how):
    made = ddim.sample(denoise, X_T, tau, **how)
    return (made - closed_form(X_T)).square().mean().sqrt().item()


def test_progressive_students_of_a_mixture_reach_the_closed_form_map(batches):
    recipe = StudentRecipe(start=32, stages=(4,), updates=300, batch_size=128, lr=1e-2, clip=10.0)
    times = ddim.tau(PROCESS, 32, "trailing")
    assert error(TEACHER, times) < 0.04
    four = student(Net(), Progressive(TEACHER, read, times, 4, "x0"), recipe, batches)
    assert error(four, times[::8]) < 0.17
    one = student(four.network, Progressive(four, read, times[::8], 1, "x0"), replace(recipe, stages=(1,)), batches)
    assert error(one, times[::32]) < 0.18
    assert error(TEACHER, times[::8]) > 0.2 and error(TEACHER, times[::32]) > 1  # what it replaces


@pytest.mark.parametrize("teacher", [None, TEACHER], ids=["tuning", "distillation"])
def test_consistency_students_of_a_mixture_reach_the_closed_form_map(batches, teacher):
    recipe = StudentRecipe("tuning", stages=(1,), updates=300, batch_size=128, lr=4e-3, clip=10.0)
    loss = Consistency(read, PROCESS, recipe.updates, teacher, mean=0.3, std=1.6, q=4.0, stages=3)
    net = student(Net(), loss, recipe, batches)
    assert error(Consistent(net), (1.0, 0.0)) < 0.3
    assert error(TEACHER, (1.0, 0.0)) > 1


def test_the_weights_are_those_of_the_paper():
    """At one step of a student with a known error of x0, by hand: SNR + 1 is the loss on v, max(SNR, 1) truncated."""
    process, x = ddim.Schedule.linear(1000), torch.full((4, 1), 0.5)
    teacher = ddim.GaussianDenoiser(process, 0.0, 1.0)
    batch = Batch(x, None)
    for t, weighting in ((1000, "v"), (1000, "x0"), (100, "v"), (100, "x0")):

        def off(network, t=t):
            def says(x_t, label):
                return ddim.uses.progressive_target(teacher, x_t, t, t // 2, 0).x0 + 0.1

            return ddim.NetworkDenoiser(says, process, "x0")

        loss = Progressive(teacher, off, (t, t // 2, 0), 1, weighting)
        state = state_of(nn.Linear(1, 1), StudentRecipe(start=2, stages=(1,)).stage(0), "cpu")
        snr = float(process.alpha_bar[t] / (1 - process.alpha_bar[t]))
        wanted = 0.01 * (snr + 1 if weighting == "v" else max(snr, 1))
        draws = loss.draw(ddim.process.generator(0, "test"), 4, (1,))
        assert float(loss(state, batch, draws)) == pytest.approx(wanted, rel=1e-4)


def test_other_solvers_teach_each_image_the_walk_of_its_own_step():
    """With exact targets as the student's answer the loss is 0, step by step."""
    times = ddim.tau(PROCESS, 8, "trailing")
    solver = solver_named("dpm++2m")
    exact = {t: times[4 * i : 4 * i + 5] for i, t in enumerate(times[:-1:4])}

    class Exact(ddim.Denoiser):
        process, invertible = PROCESS, True

        def __call__(self, x_t, t, conditions=None):
            rows = [ddim.uses.walk_target(TEACHER, solver, x_t[i : i + 1], exact[float(v)]) for i, v in enumerate(t)]
            return ddim.process.Prediction(torch.cat([p.x0 for p in rows]), torch.cat([p.eps for p in rows]))

    loss = Progressive(TEACHER, lambda network: Exact(), times, 2, solver=solver)
    state = state_of(nn.Linear(1, 1), StudentRecipe(start=8, stages=(2,)).stage(0), "cpu")
    draws = loss.draw(ddim.process.generator(1, "test"), 16, (1,))
    assert sorted(draws.step.tolist()) == [0] * 8 + [1] * 8
    assert float(loss(state, Batch(torch.zeros(16, 1), None), draws)) < 1e-10
    assert float(replace(loss, solver=ddim.DDIM())(state, Batch(torch.zeros(16, 1), None), draws)) > 1e-6


def test_steps_are_drawn_where_the_beginner_is_wrong():
    """Of x0 errors .3, .1, 0 and .6, shares e/sum + a quarter of even ones; 64 rows follow them to one row."""
    times, errors = ddim.tau(PROCESS, 8, "trailing"), torch.tensor([0.3, 0.1, 0.0, 0.6])
    own = times[:-1:2]

    class Off(ddim.Denoiser):
        process, invertible = PROCESS, True

        def __call__(self, x_t, t, conditions=None):
            step = [own.index(float(v)) for v in t]
            m, s = (torch.tensor([times[2 * i + k] for i in step], dtype=torch.float64) for k in (1, 2))
            p = ddim.uses.progressive_target(TEACHER, x_t, t, m, s)
            return ddim.process.Prediction(p.x0 + errors[step][:, None], p.eps)

    loss = Progressive(TEACHER, lambda network: Off(), times, 4)
    by_need = loss.by_need(None, Batch(torch.zeros(64, 1), None), 0, torch.device("cpu"))
    assert by_need.shares == pytest.approx([0.3625, 0.1625, 0.0625, 0.6625], abs=1e-4)
    step = by_need.draw(ddim.process.generator(0, "test"), 64, (1,)).step
    wanted = 64 * torch.tensor(by_need.shares) / 1.25
    assert bool(((torch.bincount(step) - wanted).abs() < 1).all()) and step.sort().values.ne(step).any()


@pytest.mark.parametrize("process", [PROCESS, ddim.Schedule.linear(1000), ddim.process.edm()], ids=lambda p: p.name)
def test_the_pairs_of_consistency_fall_and_come_closer(process):
    """r = t (1 - (1 + 8 sigmoid(-t)) / q^(stage + 1)) in noise/signal, locuslab/ect's mapping."""
    loss = Consistency(read, process, 100, q=4.0, stages=4)
    far = [172.0, 600.0]  # the log-normal draws these too, beyond all that some processes have
    ratio = torch.tensor([0.05, 0.5, 2.0, 20.0, 60.0, *far], dtype=torch.float64)
    for step, closeness in ((0, 4.0), (30, 16.0), (99, 256.0)):
        t, r = loss.pairs(ratio, step)
        assert bool((t > r).all()) and bool((r >= process.first).all())
        most = process.at(process.T).noise / max(process.at(process.T).signal, 1e-300)
        assert bool((t[-2:] <= process.T).all())
        for rho, one, other in zip(ratio.clamp(max=most).tolist(), t.tolist(), r.tolist(), strict=True):
            at, near = (process.at(v) for v in (one, other))
            wanted = max(rho * (1 - (1 + 8 / (1 + math.exp(rho))) / closeness), 0)
            if not process.discrete and wanted > process.at(process.first).noise * 1.01:
                assert at.noise / at.signal == pytest.approx(rho) and near.noise / near.signal == pytest.approx(wanted)
