"""Autoguidance against closed forms: on Gaussians every extrapolation is a sum of two affine maps."""

import pytest
import torch

from ddim import DDIM, Clip, GaussianDenoiser, Heun, NetworkDenoiser, Refused, Schedule, noise, sample, tau, trajectory
from ddim.denoise import NONE, Autoguided, Bound, Conditions, Denoiser, Guided, labels
from ddim.process import edm, vp
from ddim.solve import asked
from ddim.uses import decode, encode

SCHEDULE = Schedule.linear(1000)
COVARIANCE = torch.tensor([[0.5, 0.2, 0.0], [0.2, 0.3, 0.1], [0.0, 0.1, 0.9]], dtype=torch.float64)
MEAN = torch.tensor([0.3, -0.6, 0.1], dtype=torch.float64)
MAIN, GUIDE = GaussianDenoiser(SCHEDULE, MEAN, COVARIANCE), GaussianDenoiser(SCHEDULE, 0.2, 1.3)
X = torch.linspace(-2, 2, 12, dtype=torch.float64).view(4, 3)


@pytest.mark.parametrize("weight", [-1.0, 0.0, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("t", [1, 400, 1000, torch.tensor([3, 200, 700, 1000])])
def test_the_extrapolation_of_two_gaussians(weight, t):
    """eps_w = noise (w C_1^-1 (x - signal m_1) + (1 - w) C_0^-1 (x - signal m_0)), C = signal^2 Sigma + noise^2 I."""
    p = Autoguided(MAIN, GUIDE, weight)(X, t)
    times = [t] * 4 if isinstance(t, int) else t.tolist()
    for i, time in enumerate(times):
        at, eye = SCHEDULE.at(time), torch.eye(3, dtype=torch.float64)
        sharp = torch.linalg.solve(at.signal**2 * COVARIANCE + at.noise**2 * eye, X[i] - at.signal * MEAN)
        blunt = (X[i] - at.signal * 0.2) / (at.signal**2 * 1.3 + at.noise**2)
        eps = at.noise * (weight * sharp + (1 - weight) * blunt)
        torch.testing.assert_close(p.eps[i], eps, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(p.x0[i], (X[i] - at.noise * eps) / at.signal, rtol=1e-6, atol=1e-8)


def test_equal_spread_moves_the_mean_all_the_way_to_the_sample():
    """With one covariance the guided process is that of the mean m_0 + w (m_1 - m_0), from x_T to x_0."""
    x_T, times = noise(range(4), (5,), dtype=torch.float64), tau(1000, 7)
    one, other = (GaussianDenoiser(SCHEDULE, mean, 0.25) for mean in (0.5, 0.1))
    for solver in (DDIM(), DDIM(0.5), Heun()):
        made = sample(Autoguided(one, other, 3.0), x_T, times, solver=solver, seeds=range(4))
        expected = sample(GaussianDenoiser(SCHEDULE, 1.3, 0.25), x_T, times, solver=solver, seeds=range(4))
        torch.testing.assert_close(made, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weight", [-2.0, 0.0, 1.0, 4.0])
def test_a_model_that_guides_itself_is_the_plain_model_bit_for_bit(weight):
    for t in (0, 1, 500, torch.tensor([1, 20, 700, 1000])):
        p, plain = Autoguided(MAIN, MAIN, weight)(X, t), MAIN(X, t)
        assert torch.equal(p.eps, plain.eps) and torch.equal(p.x0, plain.x0)


@pytest.mark.parametrize(("main", "guide"), [("eps", "v"), ("v", "eps"), ("x0", "v")])
def test_a_guide_may_predict_something_else(main, guide):
    """The same two Gaussians as networks of two parameterisations: only the pair (x0, eps) is mixed."""

    def network(oracle, prediction):
        def said(x, label):
            p, at = oracle(x, label + 1), SCHEDULE.at_batch(label + 1, x)
            return {"eps": p.eps, "x0": p.x0, "v": at.signal * p.eps - at.noise * p.x0}[prediction]

        return NetworkDenoiser(said, SCHEDULE, prediction)

    made = Autoguided(network(MAIN, main), network(GUIDE, guide), 2.0)(X, 300)
    expected = Autoguided(MAIN, GUIDE, 2.0)(X, 300)
    torch.testing.assert_close(made.eps, expected.eps, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(made.x0, expected.x0, rtol=1e-9, atol=1e-9)


class Counted(Denoiser):
    process, invertible = SCHEDULE, True

    def __init__(self, oracle):
        self.oracle, self.times = oracle, []

    def __call__(self, x_t, t, conditions=NONE):
        self.times.append((t, dict(conditions.per_image)))
        return self.oracle(x_t, t)


@pytest.mark.parametrize("solver", [DDIM(), DDIM(1.0), Heun()])
def test_calls_are_two_inside_the_interval_and_one_outside(solver):
    main, guide, times = Counted(MAIN), Counted(GUIDE), tau(1000, 10)
    guided = Autoguided(main, guide, 2.0, interval=(200, 700))
    steps = list(trajectory(guided, solver, times, noise(range(2), (3,)), lambda t: torch.zeros(2, 3)))
    spent = len(main.times) + len(guide.times)
    assert sum(step.calls for step in steps) == spent
    assert len(main.times) == solver.calls(times) and [t for t, _ in main.times] == list(asked(MAIN, solver, times))
    assert [t for t, _ in guide.times] == [t for t, _ in main.times if 200 <= t <= 700] != []
    assert spent == sum(map(guided.calls_at, asked(MAIN, solver, times)))
    assert Autoguided(MAIN, GUIDE, 1.0).calls_at(500) == 1


def test_outside_the_interval_it_is_the_plain_model():
    guided, whole = Autoguided(MAIN, GUIDE, 3.0, interval=(100, 600)), Autoguided(MAIN, GUIDE, 3.0)
    for t, on in [(99, False), (100, True), (600, True), (601, False)]:
        assert torch.equal(guided(X, t).x0, (whole if on else MAIN)(X, t).x0)
    times = torch.tensor([99, 100, 600, 601])
    mixed = guided(X, times)
    for i, t in enumerate(times.tolist()):
        torch.testing.assert_close(mixed.eps[i : i + 1], guided(X[i : i + 1], t).eps)


def test_both_are_told_the_conditions_and_labels_guide_on_top():
    main, guide = Counted(MAIN), Counted(GUIDE)
    told = labels(torch.arange(4))
    Bound(Autoguided(main, guide, 2.0), told)(X, 500)
    assert all(torch.equal(seen["label"], torch.arange(4)) for _, seen in [*main.times, *guide.times])
    both = Autoguided(Guided(Counted(MAIN), 2.0, 9), guide, 2.0)  # by the null label first, by the guide on top
    assert both.calls_at(500) == 3
    assert both.describe() == {
        "guidance": 2.0, "rescale": 0.0, "interval": None, "guide": {"weight": 2.0, "interval": None}
    }  # fmt: skip


def test_what_it_says_of_itself():
    assert Autoguided(MAIN, GUIDE, 2.0).invertible is True
    assert Autoguided(Clip(MAIN), GUIDE, 2.0).invertible is Autoguided(MAIN, Clip(GUIDE), 2.0).invertible is False

    class Weights(Counted):
        def identify(self, digest):
            digest.update(str(self.oracle).encode())

    def fed(denoise):
        got = []
        denoise.identify(type("Digest", (), {"update": lambda self, data: got.append(data)})())
        return got

    one, two = Weights("one"), Weights("two")
    assert fed(Autoguided(one, two, 2.0)) == [b"one", b"two"] != fed(Autoguided(two, one, 2.0))
    rows = Autoguided(Bound(MAIN, labels(torch.arange(4))), Bound(GUIDE, labels(torch.arange(4))), 2.0)
    picked = rows.rows(torch.tensor([2]))
    assert picked.denoise.conditions.per_image["label"].tolist() == [2]
    assert picked.guide.conditions.per_image["label"].tolist() == [2]


def test_it_can_be_encoded_through():
    guided = Autoguided(MAIN, GUIDE, 1.5, interval=(100, 800))
    latents = encode(guided, X, tau(1000, 8))
    torch.testing.assert_close(decode(guided, latents), X, rtol=0, atol=1e-8)
    with pytest.warns(UserWarning, match="guide"):
        decode(MAIN, latents)


def test_mistakes_are_named():
    for other in (Schedule.linear(100), Schedule.cosine(1000), vp()):
        with pytest.raises(Refused, match=r"the guide walks another process.*trained on the same schedule"):
            Autoguided(MAIN, GaussianDenoiser(other, 0.0, 1.0), 2.0)
    on_edm = GaussianDenoiser(edm(), 0.0, 1.0)
    Autoguided(on_edm, GaussianDenoiser(edm(), 0.3, 1.0), 2.0, interval=(0.5, 7.5))(X, 3.0)
    with pytest.raises(Refused, match=r"finite, got nan"):
        Autoguided(MAIN, GUIDE, float("nan"))
    with pytest.raises(Refused, match="one number for all images"):
        Autoguided(MAIN, GUIDE, [1.0, 2.0])
    with pytest.raises(Refused, match="interval"):
        Autoguided(MAIN, GUIDE, 2.0, interval=(600, 100))

    class Wide(Counted):
        def __call__(self, x_t, t, conditions=Conditions()):  # noqa: B008  a stand-in
            return GUIDE(torch.cat([x_t, x_t], 1), t)

    with pytest.raises(Refused, match=r"the guide answers \(4, 6\) where the model answers \(4, 3\)"):
        Autoguided(MAIN, Wide(None), 2.0)(X, 500)
