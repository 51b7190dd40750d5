import pytest
import torch
from torch import nn

from ddim import Clip, GaussianDenoiser, NetworkDenoiser, Schedule, noise, sample, tau
from ddim.denoise import NONE, Bound, Conditions, Denoiser, DynamicThreshold
from ddim.process import Prediction

SCHEDULE = Schedule.linear()


def recorder(seen):
    def network(x, t, **cond):
        seen.append((t, cond))
        return torch.zeros_like(x)

    return network


def test_the_network_sees_zero_based_int64_labels():
    seen = []
    denoise = NetworkDenoiser(recorder(seen), SCHEDULE)
    x = noise([0, 1], (3, 4, 4))
    for t, label in ((1000, 999), (1, 0), (0, 0)):
        denoise(x, t)
        assert seen[-1][0].dtype == torch.int64 and seen[-1][0].tolist() == [label, label]
    denoise(x, torch.tensor([5, 1000]), Conditions(shared={"colour": 3}))
    assert seen[-1][0].tolist() == [4, 999] and seen[-1][1] == {"colour": 3}


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
def test_three_networks_that_say_the_same_give_the_same_pair(prediction):
    """A network of each kind made from the exact answer: the pairs, and whole samples, must agree."""
    oracle = GaussianDenoiser(SCHEDULE, 0.3, 0.25)

    def network(x, label):
        t = int(label[0]) + 1
        p = oracle(x, t)
        level = SCHEDULE.at(t)
        return {"eps": p.eps, "x0": p.x0, "v": level.signal * p.eps - level.noise * p.x0}[prediction]

    x_T = noise([0, 1, 2], (5,), dtype=torch.float64)
    times = tau(1000, 10, "trailing")
    ours = sample(NetworkDenoiser(network, SCHEDULE, prediction), x_T, times)
    torch.testing.assert_close(ours, sample(oracle, x_T, times), rtol=1e-9, atol=1e-9)


def test_batched_times_equal_single_times():
    oracle = GaussianDenoiser(SCHEDULE, 0.3, 0.25)
    x = noise([0, 1, 2], (5,), dtype=torch.float64)
    for wrapped in (oracle, Clip(oracle), DynamicThreshold(oracle, 0.5, 2.0)):
        together = wrapped(x, torch.tensor([0, 400, 1000]))
        for i, t in enumerate((0, 400, 1000)):
            alone = wrapped(x[i : i + 1], t)
            torch.testing.assert_close(together.x0[i : i + 1], alone.x0, rtol=1e-12, atol=1e-12)
            torch.testing.assert_close(together.eps[i : i + 1], alone.eps, rtol=1e-12, atol=1e-12)


def test_at_time_0_the_image_is_itself():
    x = noise([0, 1], (1, 4, 4))
    denoise = NetworkDenoiser(lambda x, t: 0.5 * x, SCHEDULE)
    assert torch.equal(denoise(x, 0).x0, x) and torch.equal(denoise(x, 0).eps, 0.5 * x)
    assert torch.equal(denoise(x, torch.tensor([0, 0])).x0, x)


def test_eps_on_zero_terminal_snr_is_refused_when_built():
    zero = SCHEDULE.zero_terminal_snr()
    with pytest.raises(ValueError, match=r"alpha_bar\[1000\] = 0.*'v' or 'x0'"):
        NetworkDenoiser(lambda x, t: x, zero)
    for prediction in ("v", "x0"):
        out = NetworkDenoiser(lambda x, t: x, zero, prediction)(noise([0], (4,)), 1000)
        assert bool(torch.isfinite(out.x0).all() and torch.isfinite(out.eps).all())


def test_learned_variance_is_dropped_and_wrong_shapes_named():
    def doubled(x, t):
        return torch.cat([x, torch.full_like(x, 9.0)], 1)

    x = noise([0], (3, 4, 4))
    assert torch.equal(NetworkDenoiser(doubled, SCHEDULE, learned_variance=True)(x, 10).eps, x)
    with pytest.raises(ValueError, match=r"\(1, 6, 4, 4\).*\(1, 3, 4, 4\).*learned-variance"):
        NetworkDenoiser(doubled, SCHEDULE)(x, 10)


def test_the_state_keeps_its_precision_and_the_network_its_own():
    net = nn.Linear(4, 4).double()

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net

        def forward(self, x, t):
            assert x.dtype == torch.float64
            return self.inner(x)

    out = NetworkDenoiser(Wrapped(), SCHEDULE)(noise([0], (4,)), 10)
    assert out.x0.dtype == torch.float32


@pytest.mark.parametrize("t", [1, 300, 1000])
def test_clip_re_derives_eps(t):
    x = 3 * noise([0, 1], (3, 4, 4), dtype=torch.float64)
    level = SCHEDULE.at(t)
    clipped = Clip(GaussianDenoiser(SCHEDULE, 0.0, 4.0))(x, t)
    assert float(clipped.x0.abs().max()) <= 1.0
    torch.testing.assert_close(level.signal * clipped.x0 + level.noise * clipped.eps, x)


def test_dynamic_threshold_follows_imagen():
    x0 = torch.tensor([[0.1, 0.2, -0.3, 4.0], [0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)

    class Fixed(Denoiser):
        process, invertible = SCHEDULE, True

        def __call__(self, x_t, t, conditions=NONE):
            level = SCHEDULE.at(t)
            return Prediction(x0, (x_t - level.signal * x0) / level.noise)

    x_t = torch.ones_like(x0)
    out = DynamicThreshold(Fixed(), quantile=1.0)(x_t, 500)
    torch.testing.assert_close(out.x0[0], x0[0] / 4.0)  # s = max |x0| = 4: scaled into [-1, 1]
    torch.testing.assert_close(out.x0[1], x0[1])  # never stretched
    capped = DynamicThreshold(Fixed(), quantile=1.0, maximum=2.0)(x_t, 500)
    torch.testing.assert_close(capped.x0[0], torch.tensor([0.05, 0.1, -0.15, 1.0], dtype=torch.float64))
    level = SCHEDULE.at(500)
    torch.testing.assert_close(level.signal * capped.x0 + level.noise * capped.eps, x_t)


def test_bound_fills_in_conditions():
    seen = []
    Bound(NetworkDenoiser(recorder(seen), SCHEDULE), Conditions(shared={"label": 3}))(noise([0], (2,)), 7)
    assert seen[0][1] == {"label": 3}
