"""An average rebuilt after training is the one that would have been followed, whatever its length."""

import pytest
import torch
from torch import nn

from ddim.data import TensorBatches
from ddim.jobs import AVERAGES, Averages, Denoising, Recipe, fit, state_of
from ddim.jobs.train import keep_snapshot
from ddim.nets import Powers, torch_randomness

RECIPE = Recipe(prediction="x0", timesteps=50, schedule="cosine", batch_size=8, lr=0.02, warmup=0)
DIRECT = (0.05, 0.07, 0.10, 0.15)
STEPS = 700


class Small(nn.Module):
    """A perceptron that never comes to rest: its batches are few and its rate is high."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 24), nn.SiLU(), nn.Linear(24, 6))

    def forward(self, x, t):
        return self.layers(x)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with its snapshots, and the averages of four lengths followed at every step of it."""
    run = tmp_path_factory.mktemp("run")
    (run / AVERAGES).mkdir()
    with torch_randomness(0, "weights"):
        state = state_of(Small(), RECIPE, "cpu")
    state.powers = Powers(state.unwrapped)
    direct = Powers(state.unwrapped, DIRECT)
    data = TensorBatches(torch.randn(64, 6, generator=torch.Generator().manual_seed(0)), 8)
    for _ in fit(state, data, Denoising.of(RECIPE), max_steps=STEPS):
        direct.update(state.unwrapped)
        keep_snapshot(run, state, due_only=state.step < STEPS)
    return run, dict(zip(DIRECT, direct.shadows, strict=True))


def apart(one, other):
    flat = [torch.cat([w[name].double().flatten() for name in sorted(w)]) for w in (one, other)]
    return float((flat[0] - flat[1]).norm() / flat[1].norm())


@pytest.mark.parametrize("length", DIRECT)
def test_a_rebuilt_average_is_the_one_followed_at_every_step(trained, length):
    run, direct = trained
    (rebuilt,) = Averages.of(run).weights([length])
    assert apart(rebuilt, direct[length]) < 1e-3


def test_the_law_can_fail(trained):
    """Other lengths of the same run are ten times as far apart as the law allows."""
    _, direct = trained
    gaps = [apart(direct[a], direct[b]) for a, b in ((0.05, 0.07), (0.07, 0.10), (0.10, 0.15))]
    assert min(gaps) > 1e-2, gaps
