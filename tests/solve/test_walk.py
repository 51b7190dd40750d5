from itertools import pairwise

import numpy as np
import pytest
import torch

from ddim import DDIM, GaussianDenoiser, Heun, Schedule, noise, sample, tau, trajectory
from ddim.denoise import NONE, DynamicThreshold, Guided, labels
from ddim.solve import step_noise

SCHEDULE = Schedule.linear()
DENOISE = GaussianDenoiser(SCHEDULE, 0.3, 0.25)
SEEDS = [4, 0, 17]


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_image_i_is_image_i(eta):
    """Bit for bit: alone, in a batch, in another order."""
    x_T, times, solver = noise(SEEDS, (3, 4, 4)), tau(1000, 7), DDIM(eta)
    together = sample(DENOISE, x_T, times, solver=solver, seeds=SEEDS)
    for i, seed in enumerate(SEEDS):
        alone = sample(DENOISE, noise([seed], (3, 4, 4)), times, solver=solver, seeds=[seed])
        assert torch.equal(alone[0], together[i])
    swapped = sample(DENOISE, x_T.flip(0), times, solver=solver, seeds=SEEDS[::-1])
    assert torch.equal(swapped.flip(0), together)


def test_the_loop_walks_neighbouring_entries_of_tau():
    walked = []

    class Spy(DDIM):
        def step(self, denoise, x, t, s, carry, z):
            walked.append((t, s))
            return super().step(denoise, x, t, s, carry, z)

    times = (981, 640, 33, 1, 0)
    steps = list(trajectory(DENOISE, Spy(), times, noise([0], (4,))))
    assert walked == [(981, 640), (640, 33), (33, 1), (1, 0)]
    assert len(steps) == 4


@pytest.mark.parametrize("solver", [DDIM(), Heun()])
def test_the_yielded_prediction_is_the_one_at_the_start_of_the_step(solver):
    x = noise([0, 1], (4,), dtype=torch.float64)
    times = (1000, 400, 1, 0)
    here = x
    for t, state in zip(times, trajectory(DENOISE, solver, times, x), strict=False):
        assert torch.equal(state.prediction.x0, DENOISE(here, t).x0)
        here = state.x


def test_times_may_be_numpys_or_torchs():
    x_T, times = noise([0], (4,)), tau(1000, 5)
    for other in (np.array(times), torch.tensor(times), list(times)):
        assert torch.equal(sample(DENOISE, x_T, other), sample(DENOISE, x_T, times))


@pytest.mark.parametrize("solver", [DDIM(), DDIM(1.0)])
def test_seeds_must_be_one_an_image(solver):
    with pytest.raises(ValueError, match="2 images need 2 seeds, got 1"):
        sample(DENOISE, noise([0, 1], (4,)), tau(1000, 5), solver=solver, seeds=[1])


def test_items_may_be_single_numbers():
    """(B,): the smallest of all shapes, item i as it is among (B, 1)."""
    x = noise([0, 1, 2], (1,), dtype=torch.float64)[:, 0]
    assert torch.equal(sample(DENOISE, x, tau(1000, 5)), sample(DENOISE, x[:, None], tau(1000, 5))[:, 0])
    assert torch.equal(DENOISE.flow(x, 1000, 1), DENOISE.flow(x[:, None], 1000, 1)[:, 0])
    assert DynamicThreshold(DENOISE)(x, 500).x0.shape == (3,)
    guided = Guided(DENOISE, 2.0, 3, rescale=0.7)
    with pytest.raises(ValueError, match="rescale=0"):
        guided(x[:, None], 500, labels(torch.tensor([0, 1, 2])))


def test_network_calls_are_what_the_solver_says():
    calls = []

    class Counting(GaussianDenoiser):
        def __call__(self, x_t, t, conditions=NONE):
            calls.append(t)
            return super().__call__(x_t, t)

    counting = Counting(SCHEDULE, 0.0, 1.0)
    for solver, expected in ((DDIM(), 10), (DDIM(1.0), 10), (Heun(), 19)):  # Heun's last step is one call
        calls.clear()
        sample(counting, noise([0], (4,)), tau(1000, 10), solver=solver, seeds=[0])
        assert len(calls) == expected


def test_noise_is_keyed_by_time_so_a_late_start_repeats_the_full_run():
    times, x_T = tau(1000, 10), noise(SEEDS, (4,), dtype=torch.float64)
    full = list(trajectory(DENOISE, DDIM(1.0), times, x_T, step_noise(SEEDS, x_T)))
    rest = list(trajectory(DENOISE, DDIM(1.0), times[4:], full[3].x, step_noise(SEEDS, x_T)))
    assert torch.equal(rest[-1].x, full[-1].x)


def test_solvers_and_inputs_are_left_alone():
    x_T = noise([0], (4,))
    before, solver = x_T.clone(), DDIM(0.5)
    first = sample(DENOISE, x_T, tau(1000, 5), solver=solver, seeds=[0])
    assert torch.equal(x_T, before) and solver == DDIM(0.5)
    assert torch.equal(sample(DENOISE, x_T, tau(1000, 5), solver=solver, seeds=[0]), first)


def test_per_step_sigmas_by_mapping_equal_the_eta_they_came_from():
    from ddim.process import sigma

    times, x_T = tau(1000, 6), noise(SEEDS, (4,), dtype=torch.float64)
    std = {t: sigma(SCHEDULE.at(t), SCHEDULE.at(s), 0.5) for t, s in pairwise(times)}
    by_map = sample(DENOISE, x_T, times, solver=DDIM(sigma=std), seeds=SEEDS)
    torch.testing.assert_close(by_map, sample(DENOISE, x_T, times, solver=DDIM(0.5), seeds=SEEDS))
    with pytest.raises(ValueError, match="no std for the step from t = 1000"):
        sample(DENOISE, x_T, times, solver=DDIM(sigma={7: 0.1}), seeds=SEEDS)


@pytest.mark.parametrize(
    ("times", "solver", "seeds", "says"),
    [
        ((1000,), DDIM(), None, "at least two"),
        ((1000, 500, 700, 0), DDIM(), None, "monotone"),
        ((1000, 500, 500, 0), DDIM(), None, "monotone"),
        ((1001, 0), DDIM(), None, r"outside 0\.\.1000"),
        ((1000, 0), DDIM(0.5), None, "give seeds"),
        ((0, 1000), DDIM(0.5), [0], "eta = 0"),
        ((1000, 1, 0), DDIM(0.5), [0, 1], "1 images need 1 seeds, got 2"),
    ],
)
def test_senseless_requests(times, solver, seeds, says):
    with pytest.raises(ValueError, match=says):
        sample(DENOISE, noise([0], (4,)), times, solver=solver, seeds=seeds)


def test_senseless_solvers():
    with pytest.raises(ValueError, match="at least 0"):
        DDIM(-0.5)
    with pytest.raises(ValueError, match="not both"):
        DDIM(0.5, sigma="hat")
    with pytest.raises(ValueError, match="hat-unmasked"):
        DDIM(sigma="fixedlarge")
    with pytest.raises(ValueError, match="largest std"):  # eta far above eta_max
        sample(DENOISE, noise([0], (4,)), tau(1000, 10), solver=DDIM(9.0), seeds=[0])
