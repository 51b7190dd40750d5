"""A network for tests of encoding: small, random, and rough enough that exactness is not easy."""

import torch
from torch import nn

from ddim import NetworkDenoiser, Schedule, noise, tau

SCHEDULE = Schedule.linear(1000)
TAU = tau(1000, 20)


class Network(nn.Module):
    """A small random convolution, rough enough that the implicit step does not contract everywhere."""

    def __init__(self, strength=1.0, classes=4):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)
            self.embed = nn.Embedding(classes + 1, 8)
        self.strength, self.classes = strength, classes
        self.requires_grad_(False)

    def forward(self, x, t, label=None):
        label = torch.full((len(x),), self.classes) if label is None else label
        hidden = torch.tanh(self.first(x) + self.embed(label)[:, :, None, None] + t.to(x)[:, None, None, None] / 500)
        return self.strength * (self.last(hidden) + 0.3 * x)


def network(strength=1.0, dtype=torch.float32):
    return NetworkDenoiser(Network(strength).to(dtype), SCHEDULE)


def images(n=5, dtype=torch.float32):
    return (noise(range(n), (1, 8, 8), dtype=dtype) * 0.7).clamp(-1, 1)


LABELS = torch.tensor([0, 1, 2, 3, 0])
