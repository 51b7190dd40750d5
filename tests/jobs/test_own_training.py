"""The trainer for a module of one's own: any shape, any batches, with or without classes."""

import pytest
import torch
from torch import nn

from ddim import Model, Refused
from ddim.data import Batch, TensorBatches
from ddim.jobs import Denoising, Recipe, fit, state_of

RECIPE = Recipe(prediction="x0", timesteps=50, schedule="cosine", batch_size=32, lr=0.05, warmup=0, ema=0.9)


class Constant(nn.Module):
    """Says the same vector whatever it is shown, one for each class where there are any."""

    def __init__(self, classes=None, wrapped=False):
        super().__init__()
        self.say = nn.Parameter(torch.zeros(classes or 1, 2, 3))
        self.classes, self.wrapped, self.shown = classes, wrapped, []

    def forward(self, x, t, *label):
        assert len(label) == (self.classes is not None) and int(t.min()) >= 0 and int(t.max()) < 50
        self.shown += label
        out = self.say[label[0]] if label else self.say.expand(len(x), 2, 3)
        return type("Output", (), {"sample": out})() if self.wrapped else out


@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_learned_is_the_mean_and_the_model_samples_it(wrapped):
    """The best constant x0 is the data's mean, and the last step of DDIM ends at x0."""
    x0 = torch.randn(64, 2, 3, generator=torch.Generator().manual_seed(1))
    net = Constant(wrapped=wrapped)
    state = state_of(net, RECIPE, "cpu")
    for _ in fit(state, TensorBatches(x0, 32), Denoising.of(RECIPE), max_steps=300):
        pass
    state.ema.copy_to(net)
    torch.testing.assert_close(net.say[0].detach(), x0.mean(0), rtol=0, atol=0.1)
    model = Model.from_network(net, RECIPE.noise_schedule(), shape=(2, 3), prediction="x0")
    torch.testing.assert_close(model.sample(2, steps=5)[1], net.say[0].detach())


def test_classes_are_learned_apart_and_dropped_at_their_rate():
    x0 = torch.tensor([-1.0, 1.0]).repeat(32)[:, None, None].expand(64, 2, 3)
    label = torch.tensor([0, 1]).repeat(32)
    recipe = Recipe(**{**RECIPE.as_dict(), "label_dropout": 0.25})
    net = Constant(3)
    loss = Denoising.of(recipe, null_label=2)
    for _ in fit(state_of(net, recipe, "cpu"), TensorBatches(x0, 32, label=label), loss, max_steps=200):
        pass
    means = net.say.detach().mean((1, 2))
    torch.testing.assert_close(means, torch.tensor([-1.0, 1.0, 0.0]), rtol=0, atol=0.25)
    dropped = (torch.cat(net.shown) == 2).double().mean()
    assert abs(float(dropped) - 0.25) < 5 * (0.25 * 0.75 / 6400) ** 0.5


def test_batches_of_tensors_are_rows_of_epochs():
    x0 = torch.arange(10.0)[:, None]
    batches = TensorBatches(x0, 4, seed=3, label=torch.arange(10))
    seen = torch.cat([batches(step).x0 for step in range(5)]).flatten().tolist()
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10)) and seen[:10] != seen[10:]
    own = batches(2, slice(1, 3))
    assert own.x0.flatten().tolist() == seen[9:11] and own.label.tolist() == seen[9:11]
    assert TensorBatches(x0, 4)(0).label is None
    for wrong in ({"label": torch.arange(9)}, {"batch_size": 0}):
        with pytest.raises(Refused):
            TensorBatches(x0, **{"batch_size": 4, **wrong})


def test_any_function_gives_batches():
    def batch_at(step, rows):
        return Batch(torch.ones(32, 2, 3)[rows], None)

    net = Constant()
    last = list(fit(state_of(net, RECIPE, "cpu"), batch_at, Denoising.of(RECIPE), max_steps=80))[-1]
    assert last.step == 80 and float(net.say.detach().mean()) == pytest.approx(1.0, abs=0.2)
