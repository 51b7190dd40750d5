"""Stitching: which network answers when, for every solver, batches of times, encoding; what it costs and says."""

import pytest
import torch

from ddim import DDIM, Clip, GaussianDenoiser, NetworkDenoiser, Refused, Schedule, noise, sample, tau, trajectory
from ddim.denoise import NONE, Autoguided, Bound, Conditions, Denoiser, Stitched, labels
from ddim.process import edm
from ddim.solve import SOLVERS, asked, solver_named
from ddim.uses import decode, encode

SCHEDULE = Schedule.linear(1000)
SMALL, LARGE = GaussianDenoiser(SCHEDULE, 0.5, 1.0), GaussianDenoiser(SCHEDULE, -0.2, 0.3)
X = torch.linspace(-2, 2, 12, dtype=torch.float64).view(4, 3)


class Counted(Denoiser):
    process, invertible = SCHEDULE, True

    def __init__(self, oracle):
        self.oracle, self.times = oracle, []

    def __call__(self, x_t, t, conditions=NONE):
        self.times.append(t)
        return self.oracle(x_t, t)


@pytest.mark.parametrize("name", sorted(SOLVERS))
def test_every_solver_asks_one_above_the_hand_over_and_the_other_below(name):
    early, late, times, solver = Counted(SMALL), Counted(LARGE), tau(1000, 8), solver_named(name)
    stitched = Stitched(early, late, at=times[4])
    x = noise(range(2), (3,), dtype=torch.float64)
    steps = list(trajectory(stitched, solver, times, x, lambda t: torch.zeros_like(x)))
    every = asked(LARGE, solver, times)
    assert early.times == [t for t in every if t > times[4]] and late.times == [t for t in every if t <= times[4]]
    assert early.times and late.times
    assert sum(step.calls for step in steps) == len(every) == sum(map(stitched.calls_at, every))


def test_it_is_the_one_walk_and_then_the_other():
    """Of a solver without a memory: the early network's walk to the hand-over, then the late one's from there."""
    x_T, times = noise(range(3), (3,), dtype=torch.float64), tau(1000, 9)
    for solver in (DDIM(), DDIM(1.0)):
        middle = sample(SMALL, x_T, times[:5], solver=solver, seeds=range(3))
        expected = sample(LARGE, middle, times[4:], solver=solver, seeds=range(3))
        made = sample(Stitched(SMALL, LARGE, at=times[4]), x_T, times, solver=solver, seeds=range(3))
        assert torch.equal(made, expected)
    assert torch.equal(sample(Stitched(SMALL, LARGE, at=1000), x_T, times), sample(LARGE, x_T, times))


def test_a_network_stitched_to_itself_is_itself():
    x_T = noise(range(3), (3,), dtype=torch.float64)
    for name in SOLVERS:
        solver = solver_named(name)
        made = sample(Stitched(LARGE, LARGE, at=333), x_T, tau(1000, 6), solver=solver, seeds=range(3))
        assert torch.equal(made, sample(LARGE, x_T, tau(1000, 6), solver=solver, seeds=range(3)))


@pytest.mark.parametrize("times", [[601, 600, 1, 1000], [700, 800, 900, 1000], [0, 1, 2, 3], [600, 600, 600, 600]])
def test_a_batch_of_times_is_split_by_image(times):
    told = Conditions({"label": torch.arange(4)})
    p = Stitched(SMALL, LARGE, at=600)(X, torch.tensor(times), told)
    for i, t in enumerate(times):
        one = (SMALL if t > 600 else LARGE)(X[i : i + 1], t)
        torch.testing.assert_close(p.x0[i : i + 1], one.x0, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(p.eps[i : i + 1], one.eps, rtol=1e-12, atol=1e-12)


def test_rows_keep_their_conditions_where_times_differ():
    class Label(Counted):
        def __call__(self, x_t, t, conditions=NONE):
            self.times.append(conditions.per_image["label"].tolist())
            return self.oracle(x_t, t)

    early, late = Label(SMALL), Label(LARGE)
    Stitched(early, late, at=600)(X, torch.tensor([601, 5, 700, 9]), labels(torch.tensor([7, 8, 9, 10])))
    assert (early.times, late.times) == ([[7, 9]], [[8, 10]])
    inside = Stitched(Bound(early, labels(torch.arange(4))), Bound(late, labels(torch.arange(4))), at=600)
    inside(X, torch.tensor([5, 601, 9, 700]))
    assert (early.times[-1], late.times[-1]) == ([1, 3], [0, 2])
    inside.rows(torch.tensor([3]))(X[:1], 5)
    assert late.times[-1] == [3]


def test_gradients_pass_where_times_differ():
    x = X.clone().requires_grad_()
    p = Stitched(SMALL, LARGE, at=600)(x, torch.tensor([601, 5, 700, 9]))
    (slope,) = torch.autograd.grad(p.x0.sum(), x)
    for i, (t, v) in enumerate([(601, 1.0), (5, 0.3), (700, 1.0), (9, 0.3)]):
        at = SCHEDULE.at(t)
        expected = at.signal * v / (at.signal**2 * v + at.noise**2)
        torch.testing.assert_close(slope[i], torch.full((3,), expected, dtype=torch.float64))


def test_it_can_be_encoded_through_and_the_recipe_knows_both():
    stitched = Stitched(SMALL, LARGE, at=500)
    latents = encode(stitched, X, tau(1000, 8))
    torch.testing.assert_close(decode(stitched, latents), X, rtol=0, atol=1e-8)
    with pytest.warns(UserWarning, match="early"):
        decode(Stitched(SMALL, LARGE, at=300), latents)
    assert Stitched(Clip(SMALL), LARGE, at=5).invertible is Stitched(SMALL, Clip(LARGE), at=5).invertible is False
    told = Stitched(SMALL, Autoguided(LARGE, SMALL, 2.0), at=5).describe()
    assert told == {"guide": {"weight": 2.0, "interval": None}, "early": {"at": 5}}
    assert Stitched(SMALL, Autoguided(LARGE, SMALL, 2.0), at=5).calls_at(5) == 2


def test_real_times():
    p = edm()
    small, large = GaussianDenoiser(p, 0.5, 1.0), GaussianDenoiser(p, -0.2, 0.3)
    stitched = Stitched(small, large, at=1.5)
    assert torch.equal(stitched(X, 1.6).x0, small(X, 1.6).x0) and torch.equal(stitched(X, 1.5).x0, large(X, 1.5).x0)
    for at in (0.0, 1e-3, 81.0, -1.0, float("nan")):
        with pytest.raises(Refused, match=r"the hand-over `at` = .* lies outside 0\.002\.\.80"):
            Stitched(small, large, at=at)


def test_mistakes_are_named():
    with pytest.raises(Refused, match=r"noisy steps walks another process.*same schedule"):
        Stitched(GaussianDenoiser(Schedule.cosine(1000), 0.0, 1.0), LARGE, at=500)
    for at in (0, 1001, -3):
        with pytest.raises(Refused, match=rf"`at` = {at} lies outside 1\.\.1000"):
            Stitched(SMALL, LARGE, at=at)
    with pytest.raises(Refused, match="whole numbers"):
        Stitched(SMALL, LARGE, at=0.5)


def test_a_variance_is_that_of_the_network_in_charge():
    def said(x, t):
        return torch.cat([0.5 * x, torch.sin(x)], 1)

    told = NetworkDenoiser(said, SCHEDULE, learned_variance="learned_range")
    silent = NetworkDenoiser(lambda x, t: 0.2 * x, SCHEDULE)
    both = Stitched(told, told, at=600)
    assert both.variance == "learned_range" == Autoguided(told, silent, 2.0).variance
    assert Stitched(told, silent, at=600).variance is None is Autoguided(silent, told, 2.0).variance
    for t in (700, 5, torch.tensor([700, 5, 601, 600])):
        torch.testing.assert_close(both(X, t).variance, torch.sin(X))
        torch.testing.assert_close(Autoguided(told, silent, 2.0)(X, t).variance, torch.sin(X))
