import math

import pytest
import torch
from scipy.stats import multivariate_normal

from ddim import GaussianDenoiser, MixtureDenoiser, Schedule, noise

SCHEDULE = Schedule.linear()
MEAN = torch.tensor([0.3, -1.0, 0.5], dtype=torch.float64)
COVARIANCE = torch.tensor([[1.0, 0.4, 0.0], [0.4, 0.5, -0.2], [0.0, -0.2, 0.3]], dtype=torch.float64)
EYE = torch.eye(3, dtype=torch.float64)
OTHER = 0.1 * EYE


def log_density(x, t, parts):
    """log p_t by scipy: each component N(signal m, a Sigma + (1 - a) I)."""
    a = float(SCHEDULE.alpha_bar[t])
    terms = []
    for weight, mean, covariance in parts:
        law = multivariate_normal((a**0.5 * mean).numpy(), (a * covariance + (1 - a) * EYE).numpy())
        terms.append(math.log(weight) + law.logpdf(x))
    return float(torch.logsumexp(torch.tensor(terms, dtype=torch.float64), 0))


@pytest.mark.parametrize("t", [1, 50, 500, 1000])
@pytest.mark.parametrize("parts", [[(1.0, MEAN, COVARIANCE)], [(0.3, MEAN, COVARIANCE), (0.7, -MEAN, OTHER)]])
def test_eps_is_minus_noise_times_the_score(t, parts):
    """eps* = -noise * grad log p_t, the gradient by central differences of scipy's density."""
    if len(parts) == 1:
        denoise = GaussianDenoiser(SCHEDULE, MEAN, COVARIANCE)
    else:
        w, m, c = zip(*parts, strict=True)
        denoise = MixtureDenoiser(SCHEDULE, w, list(m), list(c))
    x, h = torch.tensor([0.2, -0.4, 0.9], dtype=torch.float64), 1e-5
    score = torch.tensor(
        [(log_density(x + h * e, t, parts) - log_density(x - h * e, t, parts)) / (2 * h) for e in EYE],
        dtype=torch.float64,
    )
    p = denoise(x[None], t)
    torch.testing.assert_close(p.eps[0], -SCHEDULE.at(t).noise * score, rtol=1e-6, atol=1e-8)
    level = SCHEDULE.at(t)
    torch.testing.assert_close(level.signal * p.x0 + level.noise * p.eps, x[None])


def test_a_mixture_of_equal_parts_is_the_gaussian_and_images_keep_their_shape():
    x = noise([0, 1], (1, 1, 3), dtype=torch.float64)
    one = GaussianDenoiser(SCHEDULE, MEAN, COVARIANCE)(x, 300)
    two = MixtureDenoiser(SCHEDULE, [0.2, 0.8], [MEAN, MEAN], COVARIANCE)(x, 300)
    assert one.x0.shape == x.shape
    torch.testing.assert_close(one.eps, two.eps)


def test_far_from_every_component_nothing_overflows():
    x = torch.full((1, 3), 1e4, dtype=torch.float64)
    p = MixtureDenoiser(SCHEDULE, [0.5, 0.5], [MEAN, -MEAN], [COVARIANCE, OTHER])(x, 1)
    assert bool(torch.isfinite(p.x0).all())


def test_flow_keeps_the_law():
    """Pushing N(signal_t m, C_t) through the flow gives N(signal_s m, C_s): exact on the second moment map."""
    g = GaussianDenoiser(SCHEDULE, MEAN, COVARIANCE)
    at_t, at_s = SCHEDULE.at(700), SCHEDULE.at(0)
    eye = torch.eye(3, dtype=torch.float64)
    origin = g.flow(at_t.signal * MEAN[None], 700, 0)
    torch.testing.assert_close(origin, MEAN[None])
    linear = torch.cat([g.flow(at_t.signal * MEAN[None] + e[None], 700, 0) - origin for e in eye]).T
    c_t = at_t.signal**2 * COVARIANCE + at_t.noise**2 * eye
    torch.testing.assert_close(linear @ c_t @ linear.T, at_s.signal**2 * COVARIANCE + at_s.noise**2 * eye)


@pytest.mark.parametrize(
    ("covariance", "says"),
    [(torch.zeros(2, 2), r"\(2, 2\)"), (-1.0, "negative"), (torch.eye(3) + torch.eye(3).roll(1, 0), "symmetric")],
)
def test_bad_covariances(covariance, says):
    with pytest.raises(ValueError, match=says):
        GaussianDenoiser(SCHEDULE, 0.0, covariance)(torch.zeros(1, 3), 5)


def test_bad_mixtures():
    with pytest.raises(ValueError, match="2 means"):
        MixtureDenoiser(SCHEDULE, [1.0], [MEAN, MEAN], 1.0)
    with pytest.raises(ValueError, match="positive"):
        MixtureDenoiser(SCHEDULE, [1.0, 0.0], [MEAN, MEAN], 1.0)
