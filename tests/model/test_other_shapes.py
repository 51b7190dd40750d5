"""What is no picture: vectors, signals, volumes walk like pictures wherever no picture is needed."""

import pytest
import torch
from torch import nn

from ddim import Model, Refused, Schedule

SHAPES = [(5,), (2, 7), (1, 3, 4, 5), (4, 6, 6)]


class Shrink(nn.Module):
    """x0 = w x: every number by itself."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.3))

    def forward(self, x, t):
        return self.w * x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("solver", ["ddim", "unipc", "heun"])
def test_the_shape_is_only_an_arrangement(shape, solver):
    """A network of single numbers gives the same numbers whatever their shape."""
    net, count = Shrink(), int(torch.tensor(shape).prod())
    how = {"schedule": Schedule.cosine(100), "prediction": "x0"}
    model, flat = (Model.from_network(net, shape=s, **how) for s in (shape, (count,)))
    a, b = model.sample(3, steps=5, solver=solver), flat.sample(3, steps=5, solver=solver)
    assert a.shape == (3, *shape)
    torch.testing.assert_close(a.reshape(3, -1), b)
    z = model.encode(a, steps=5)
    torch.testing.assert_close(model.decode(z), a, rtol=0, atol=1e-5)
    torch.testing.assert_close(model.sample(latents=z.x_T, steps=5), model.decode(z.x_T, steps=5), rtol=0, atol=1e-5)
    noisy = model.sample(3, steps=5, eta=1.0, clip=True)
    assert noisy.shape == (3, *shape) and noisy.isfinite().all()


def test_pictures_are_asked_for_by_name():
    model = Model.from_network(Shrink(), Schedule.cosine(100), shape=(2, 7))
    with pytest.raises(Refused, match=r"tensors of shape \(2, 7\), not pictures"):
        model.picture_shape  # noqa: B018  it is asked, not kept
    for wrong in ((), (3, 0), (3, 8.5)):
        with pytest.raises(Refused, match="without the batch"):
            Model.from_network(Shrink(), Schedule.cosine(100), shape=wrong)
