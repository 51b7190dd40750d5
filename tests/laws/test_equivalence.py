"""Equality with diffusers' scheduler wherever that one is right; and where it is not, who is.

Its DDIMScheduler recomputes the next timestep as t - T // S. With "leading" that is its own list; with
"trailing" and "linspace" it mostly is not, so there its own timesteps are walked as pairs instead.
"""

from itertools import pairwise

import pytest
import torch
from diffusers import DDIMScheduler

from ddim import DDIM, Clip, GaussianDenoiser, NetworkDenoiser, Schedule, noise, sample, tau

SCHEDULE = Schedule.linear()
ORACLE = GaussianDenoiser(SCHEDULE, 0.3, 0.25)
X_T = noise([0, 1, 2], (1, 4, 4), dtype=torch.float64)


def scheduler(steps, spacing, **kwargs):
    s = DDIMScheduler(
        num_train_timesteps=1000, timestep_spacing=spacing, clip_sample=kwargs.pop("clip", False), **kwargs
    )
    s.alphas_cumprod = SCHEDULE.alpha_bar[1:]  # its table in float64, so that agreement is not blurred by float32
    s.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    s.set_timesteps(steps)
    return s


def theirs(s, eta=0.0, z=None, clipped=False, oracle=ORACLE):
    x = X_T
    for t in s.timesteps:
        eps = oracle(x, int(t) + 1).eps
        step = s.step(eps, int(t), x, eta=eta, variance_noise=None if z is None else z(int(t) + 1),
                      use_clipped_model_output=clipped)  # fmt: skip
        x = step.prev_sample
    return x


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("steps", "spacing"), [(10, "leading"), (7, "leading"), (333, "leading"), (10, "trailing"), (50, "trailing")]
)
def test_equal_where_its_own_list_and_its_arithmetic_agree(eta, steps, spacing):
    def z(t):
        return noise([0, 1, 2], (1, 4, 4), purpose="step", step=t, dtype=torch.float64)

    ours = sample(ORACLE, X_T, tau(1000, steps, spacing), solver=DDIM(eta), seeds=[0, 1, 2])
    reference = theirs(scheduler(steps, spacing), eta, z if eta else None)
    torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def test_equal_with_clipping_when_it_rederives_eps():
    # most of this data lies outside [-1, 1], so the clip bites; pixels depend on one another, so that it is felt
    covariance = 0.5 * torch.eye(16, dtype=torch.float64) + 2.0
    wide = GaussianDenoiser(SCHEDULE, 0.3, covariance)
    ours = sample(Clip(wide), X_T, tau(1000, 10, "leading"))
    clipping = scheduler(10, "leading", clip=True)
    torch.testing.assert_close(ours, theirs(clipping, clipped=True, oracle=wide), rtol=1e-9, atol=1e-9)
    stale = theirs(clipping, clipped=False, oracle=wide)
    assert float((ours - stale).abs().max()) > 1e-3  # its default keeps the eps of the unclipped image


@pytest.mark.parametrize(("steps", "spacing"), [(10, "linspace"), (50, "linspace"), (30, "trailing"), (13, "trailing")])
def test_its_timesteps_walked_as_pairs_and_its_own_arithmetic(steps, spacing):
    """Ours equals a hand-written walk of its list, and lies nearer the true flow than its own walk."""
    s = scheduler(steps, spacing)
    times = [int(t) + 1 for t in s.timesteps] + [0]
    assert tau(1000, steps, spacing) == tuple(times)
    x = X_T
    for t, nxt in pairwise(times):  # eq. 12 by hand on eq. 9's x0
        eps, a, a_next = ORACLE(x, t).eps, SCHEDULE.alpha_bar[t], SCHEDULE.alpha_bar[nxt]
        x = a_next.sqrt() * (x - (1 - a).sqrt() * eps) / a.sqrt() + (1 - a_next).sqrt() * eps
    ours = sample(ORACLE, X_T, times)
    torch.testing.assert_close(ours, x, rtol=1e-9, atol=1e-9)
    assert float((theirs(s) - ours).abs().max()) > 1e-3  # peers.md 1.1: its arithmetic leaves its own list


@pytest.mark.parametrize(("kind", "prediction"), [("epsilon", "eps"), ("sample", "x0"), ("v_prediction", "v")])
def test_predictions_mean_the_same(kind, prediction):
    s = scheduler(10, "leading", prediction_type=kind)
    x = X_T

    def network(x, label):
        return torch.tanh(x) * 0.3

    for t in s.timesteps:
        x = s.step(network(x, t), int(t), x).prev_sample
    ours = sample(NetworkDenoiser(network, SCHEDULE, prediction), X_T, tau(1000, 10, "leading"))
    torch.testing.assert_close(ours, x, rtol=1e-8, atol=1e-8)
