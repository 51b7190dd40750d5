import pytest
import torch
from torch import nn

from ddim.nets import Ema
from ddim.refused import Refused


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2))
        self.register_buffer("alpha_bar", torch.tensor([0.5]))


def test_the_first_updates_follow_the_warm_up_by_hand():
    """d = 1/10, 2/11, 3/12 for the first three updates: the average of 1, 2, 3 from 0."""
    net = Net()
    ema, expected = Ema(net, 0.999), 0.0
    for value, d in ((1.0, 1 / 10), (2.0, 2 / 11), (3.0, 3 / 12)):
        net.w.data.fill_(value)
        ema.update(net)
        expected = d * expected + (1 - d) * value
    assert torch.allclose(ema.shadow["w"], torch.full((2,), expected), rtol=1e-6)


def test_long_after_the_warm_up_the_decay_is_the_one_asked_for():
    net = Net()
    ema = Ema(net, 0.9)
    ema.updates = 10_000
    net.w.data.fill_(1.0)
    for _ in range(7):
        ema.update(net)
    assert torch.allclose(ema.shadow["w"], torch.full((2,), 1 - 0.9**7), rtol=1e-5)


def test_only_parameters_are_averaged_never_a_schedule_buffer():
    net = Net()
    ema = Ema(net)
    assert set(ema.shadow) == {"w"}
    net.w.data.fill_(4.0)
    with ema.applied(net):
        assert net.w.tolist() == [0.0, 0.0] and float(net.alpha_bar) == 0.5
    assert net.w.tolist() == [4.0, 4.0]


def test_own_weights_come_back_after_an_error():
    net = Net()
    ema = Ema(net)
    net.w.data.fill_(4.0)
    with pytest.raises(RuntimeError), ema.applied(net):
        raise RuntimeError
    assert net.w.tolist() == [4.0, 4.0]


def test_half_precision_weights_are_averaged_in_float32():
    """A step of 1/1000 of a bfloat16 weight would be lost in bfloat16 (8 bits)."""
    net = Net().to(torch.bfloat16)
    net.w.data.fill_(1.0)
    ema = Ema(net, 0.999)
    ema.updates = 10**6
    net.w.data.fill_(2.0)
    ema.update(net)
    assert ema.shadow["w"].dtype == torch.float32
    assert torch.allclose(ema.shadow["w"], torch.full((2,), 1.001), atol=1e-6)


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_impossible_decays_are_refused(decay):
    with pytest.raises(Refused, match="at least 0 and below 1"):
        Ema(Net(), decay)


def test_decay_zero_follows_the_weights():
    net = Net()
    ema = Ema(net, 0.0)
    net.w.data.fill_(3.0)
    ema.update(net)
    assert ema.shadow["w"].tolist() == [3.0, 3.0]


def test_the_average_is_given_for_good():
    network = torch.nn.Linear(2, 1)
    ema = Ema(network, decay=0.5)
    before = {n: p.detach().clone() for n, p in network.named_parameters()}
    with torch.no_grad():
        network.weight.add_(8.0)
    ema.update(network)  # d = min(0.5, 1/10): the average goes 0.9 of the way
    ema.copy_to(network)
    torch.testing.assert_close(network.weight.detach(), before["weight"] + 7.2)
    torch.testing.assert_close(network.bias.detach(), before["bias"])
