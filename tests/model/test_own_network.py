"""A module of one's own as a model: the same answers as the pieces put together by hand, and every use opened."""

import pytest
import torch
from torch import nn

import ddim
from ddim import DDIM, Model, NetworkDenoiser, Refused, Schedule, noise, sample, tau

SCHEDULE = Schedule.linear(1000)


class Own(nn.Module):
    def __init__(self, conditional=False, wrapped=False):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.embed = nn.Conv2d(1, 1, 3, padding=1), nn.Embedding(4, 1)
        self.conditional, self.wrapped = conditional, wrapped

    def forward(self, x, t, *label):
        assert bool(label) == self.conditional
        out = self.conv(x) + t.to(x)[:, None, None, None] / 1000
        if self.conditional:
            out = out + self.embed(label[0])[:, :, None, None]
        return type("Output", (), {"sample": out})() if self.wrapped else out


@pytest.mark.parametrize("wrapped", [False, True])
def test_it_samples_as_the_pieces_do(wrapped):
    own = Own(wrapped=wrapped)
    model = Model.from_network(own, SCHEDULE, shape=(1, 8, 8), prediction="v")
    expected = sample(
        NetworkDenoiser(own, SCHEDULE, "v"), noise([3, 4], (1, 8, 8)), tau(1000, 5), solver=DDIM(0.5), seeds=[3, 4]
    )
    # a model's convolutions are packed: equal but for rounding
    torch.testing.assert_close(model.sample(seeds=[3, 4], steps=5, eta=0.5), expected, rtol=1e-5, atol=1e-5)


def test_classes_guidance_and_encoding():
    model = Model.from_network(Own(True), SCHEDULE, shape=(1, 8, 8), prediction="v", num_classes=3, null_label=3)
    x = model.sample(3, steps=6, label=[0, 1, 2], guidance=2.0)
    z = model.encode(x, steps=6, label=[0, 1, 2], guidance=2.0)
    torch.testing.assert_close(model.decode(z, label=[0, 1, 2], guidance=2.0), x, rtol=0, atol=1e-3)
    by_hand = NetworkDenoiser(model.checkpoint.network, SCHEDULE, "v")
    null = sample(by_hand, noise([0], (1, 8, 8)), tau(1000, 6), label=torch.tensor([3]))
    torch.testing.assert_close(model.sample(1, steps=6), null, rtol=1e-5, atol=1e-5)  # no label: the null label


def test_its_identity_is_its_weights():
    a, b, c = Own(), Own(), Own()
    with torch.no_grad():
        c.conv.weight.add_(1e-3)
    names = [Model.from_network(n, SCHEDULE, shape=(1, 8, 8)).weights_hash for n in (a, b, c)]
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("network", "more", "says"),
    [
        (lambda x, t: x, {}, "torch.nn.Module"),
        (Own(), {"null_label": 3}, "num_classes"),
        (Own(), {"num_classes": 3, "labels": ["a"]}, "1 label names for 3 classes"),
        (Own(), {"prediction": "epsilon"}, "unknown prediction 'epsilon'"),
    ],
)
def test_facts_that_contradict_one_another_are_refused(network, more, says):
    with pytest.raises(Refused, match=says):
        Model.from_network(network, SCHEDULE, shape=(1, 8, 8), **more).sample(1, steps=2)


def test_it_says_what_it_is():
    assert "Own" in repr(ddim.Model.from_network(Own(), SCHEDULE, shape=(1, 8, 8)))
