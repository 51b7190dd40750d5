"""What is an image's own in a walk: its eta, its sigma, its conditions; and gradients when asked."""

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, NetworkDenoiser, Refused, Schedule, noise, sample, tau
from ddim.denoise import Conditions, Guided
from ddim.solve import trajectory

SCHEDULE = Schedule.linear(1000)
DENOISE = GaussianDenoiser(SCHEDULE, 0.3, 0.25)
SEEDS, TIMES = [3, 5, 8], tau(1000, 6)


def x_T():
    return noise(SEEDS, (4,), dtype=torch.float64)


@pytest.mark.parametrize("etas", [[0.0, 0.5, 1.0], (1.0, 0.0, 0.5), torch.tensor([0.5, 1.0, 0.0])])
def test_an_eta_an_image_is_each_image_walked_alone(etas):
    together = sample(DENOISE, x_T(), TIMES, solver=DDIM(etas), seeds=SEEDS)
    for i, eta in enumerate(etas):
        alone = sample(DENOISE, x_T()[i : i + 1], TIMES, solver=DDIM(float(eta)), seeds=SEEDS[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_a_sigma_an_image():
    std = {t: [0.0, 0.005, 0.01] for t in TIMES}
    together = sample(DENOISE, x_T(), TIMES, solver=DDIM(sigma=std), seeds=SEEDS)
    for i in range(3):
        own = {t: row[i] for t, row in std.items()}
        alone = sample(DENOISE, x_T()[i : i + 1], TIMES, solver=DDIM(sigma=own), seeds=SEEDS[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-12, atol=1e-12)


def test_solvers_of_a_row_of_etas_compare_and_slice():
    assert DDIM([0.0, 0.5]) == DDIM(torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert DDIM([0.0, 0.5, 1.0]).rows(slice(1, 3)) == DDIM((0.5, 1.0)) and DDIM(0.5).rows(slice(1, 3)) == DDIM(0.5)
    assert DDIM([0.0, 0.0]).stochastic is False and DDIM([0.0, 0.1]).stochastic is True


def test_etas_of_another_number_of_images_are_refused():
    with pytest.raises(Refused, match="3 images need one eta or sigma each"):
        sample(DENOISE, x_T(), TIMES, solver=DDIM([0.0, 1.0]), seeds=SEEDS)
    with pytest.raises(Refused, match="at least 0"):
        DDIM([0.5, -0.1])
    with pytest.raises(Refused, match="largest std"):
        sample(DENOISE, x_T(), TIMES, solver=DDIM([0.0, 9.0, 0.0]), seeds=SEEDS)


def test_gradients_pass_when_asked_and_only_then():
    """d x_0 / d x_T of the Gaussian walk is the product of its gains: finite differences agree."""
    x = x_T().requires_grad_()
    assert not sample(DENOISE, x, TIMES).requires_grad
    end = sample(DENOISE, x, TIMES, gradients=True)
    (slope,) = torch.autograd.grad(end.sum(), x)
    moved = sample(DENOISE, x.detach() + 1e-6, TIMES)
    torch.testing.assert_close(slope, (moved - end.detach()) / 1e-6, rtol=1e-6, atol=1e-8)
    with torch.no_grad():
        assert not sample(DENOISE, x, TIMES, gradients=True).requires_grad


def test_guidance_over_any_condition_by_name():
    """A network that returns its condition: guided eps is null + w (given - null), whatever the condition is called."""

    def network(x, t, text, style):
        return x * 0 + text.mean((1, 2))[:, None] + style[:, None]

    text, style = torch.arange(12.0).reshape(3, 2, 2), torch.tensor([1.0, 2.0, 3.0])
    null = torch.full((2, 2), -1.0)
    guided = Guided(NetworkDenoiser(network, SCHEDULE), 3.0, {"text": null})
    found = guided(torch.zeros(3, 4), 500, Conditions({"text": text, "style": style})).eps
    given = text.mean((1, 2)) + style
    expected = (-1.0 + style) + 3.0 * (given - (-1.0 + style))
    torch.testing.assert_close(found, expected[:, None].expand(3, 4))
    with pytest.raises(Refused, match="needs a text for every image"):
        guided(torch.zeros(3, 4), 500, Conditions({"style": style}))
    with pytest.raises(Refused, match="shape of one row"):
        Guided(guided.denoise, 3.0, {"text": torch.zeros(3)})(torch.zeros(3, 4), 5, Conditions({"text": text}))


def test_networks_that_return_an_object_with_sample():
    class Output:
        def __init__(self, sample):
            self.sample = sample

    plain = NetworkDenoiser(lambda x, t: x / 2, SCHEDULE)
    wrapped = NetworkDenoiser(lambda x, t: Output(x / 2), SCHEDULE)
    assert torch.equal(sample(plain, x_T(), TIMES), sample(wrapped, x_T(), TIMES))


def test_conditions_are_taken_by_trajectory_and_sample_alike():
    denoise = NetworkDenoiser(lambda x, t, label: x * 0 + label[:, None], SCHEDULE)
    told = Conditions({"label": torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)})
    *_, last = trajectory(denoise, DDIM(), TIMES, x_T(), conditions=told)
    assert torch.equal(last.x, sample(denoise, x_T(), TIMES, conditions=told))
    assert torch.equal(last.x, sample(denoise, x_T(), TIMES, label=told.per_image["label"]))
