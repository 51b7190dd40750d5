import numpy as np
import pytest
import torch
from torch import nn

from ddim.nets import Powers, gamma_of
from ddim.refused import Refused


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.full((2,), 9.0))
        self.register_buffer("table", torch.tensor([0.5]))


def followed(net, powers, values):
    for value in values:
        net.w.data.fill_(value)
        powers.update(net)


def test_step_i_of_t_weighs_what_the_power_function_weighs_from_i_minus_1_to_i():
    """(i^(g+1) - (i-1)^(g+1)) / t^(g+1): the integral of the weights over that step; what it began with, nothing."""
    net = Net()
    powers, values = Powers(net, (0.05, 0.2)), np.random.default_rng(0).standard_normal(40)
    followed(net, powers, values)
    edges = np.arange(41) / 40
    for length, shadow in zip((0.05, 0.2), powers.shadows, strict=True):
        expected = np.diff(edges ** (gamma_of(length) + 1)) @ values
        assert shadow["w"].tolist() == pytest.approx([expected] * 2, rel=1e-5, abs=1e-6)


def test_parameters_are_averaged_buffers_are_not_and_the_network_stays():
    net = Net()
    powers = Powers(net)
    followed(net, powers, [1.0, 2.0])
    assert [set(s) for s in powers.shadows] == [{"w"}, {"w"}] and net.w.tolist() == [2.0, 2.0]


def test_a_state_put_back_goes_on_bit_for_bit():
    net, values = Net(), [0.3, -1.0, 2.0, 0.7, 0.1]
    whole = Powers(net, since=7)
    followed(net, whole, values)
    first = Powers(net, since=7)
    followed(net, first, values[:2])
    second = Powers.of(Net(), first.state_dict())
    followed(net, second, values[2:])
    assert (second.since, second.updates, second.lengths) == (7, 5, whole.lengths)
    for a, b in zip(whole.shadows, second.shadows, strict=True):
        assert torch.equal(a["w"], b["w"])


def test_a_length_that_no_average_has_is_refused():
    with pytest.raises(Refused, match="length"):
        Powers(Net(), (0.4,))
