"""The Frechet distance against closed forms and torchmetrics; merging; the bias at finite n."""

import pytest
import torch
from torchmetrics.image.fid import FrechetInceptionDistance

from ddim import noise
from ddim.metrics import Moments, distance_name, frechet, frechet_bias
from ddim.refused import Refused


def features(n, d, purpose, scale=1.0, shift=0.0):
    return noise([7], (n, d), purpose=purpose, dtype=torch.float64)[0] * scale + shift


def exact(mean, covariance, n=10**9):
    """Moments of a law, not of a sample."""
    return Moments(n, torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(covariance).double() * (n - 1))


def test_commuting_gaussians():
    """Diagonal covariances: |m|^2 + sum (sqrt l - sqrt k)^2."""
    a = exact([0.0, 0.0, 0.0], torch.diag(torch.tensor([1.0, 4.0, 9.0])))
    b = exact([1.0, -2.0, 0.5], torch.diag(torch.tensor([4.0, 1.0, 0.0])))
    assert frechet(a, b) == pytest.approx(5.25 + 1 + 1 + 9, rel=1e-12)
    assert frechet(a, a) == pytest.approx(0.0, abs=1e-9)


def test_gaussians_that_do_not_commute():
    """2x2: Tr (A B)^(1/2) = sqrt(Tr AB + 2 sqrt(det AB))."""
    a, b = torch.tensor([[2.0, 1.0], [1.0, 3.0]]).double(), torch.tensor([[5.0, -2.0], [-2.0, 1.5]]).double()
    cross = ((a @ b).trace() + 2 * (torch.linalg.det(a) * torch.linalg.det(b)).sqrt()).sqrt()
    expected = float(a.trace() + b.trace() - 2 * cross)
    assert frechet(exact([0.0, 0.0], a), exact([0.0, 0.0], b)) == pytest.approx(expected, rel=1e-9)


class _Flat(torch.nn.Module):
    num_features = 12

    def forward(self, x):
        return x.flatten(1).to(torch.float64)


def test_equals_torchmetrics_on_the_same_features():
    a, b = features(60, 12, "a", 20.0, 128.0), features(50, 12, "b", 30.0, 100.0)
    metric = FrechetInceptionDistance(feature=_Flat(), input_img_size=(3, 2, 2), normalize=False)
    metric.set_dtype(torch.float64)
    a8, b8 = (x.clamp(0, 255).to(torch.uint8).view(-1, 3, 2, 2) for x in (a, b))
    metric.update(a8, real=True)
    metric.update(b8, real=False)
    ours = frechet(Moments.of(a8.flatten(1)), Moments.of(b8.flatten(1)))
    assert ours == pytest.approx(float(metric.compute()), rel=1e-6)


def test_fewer_images_than_features_is_no_trouble():
    """Rank-deficient covariances against scipy's matrix square root, which needs a push off singularity."""
    scipy = pytest.importorskip("scipy.linalg")
    a, b = Moments.of(features(10, 30, "a")), Moments.of(features(12, 30, "b", 2.0))
    root = scipy.sqrtm((a.covariance @ b.covariance + 1e-10 * torch.eye(30)).numpy()).real
    apart = (a.mean - b.mean).square().sum()
    expected = float(apart + a.covariance.trace() + b.covariance.trace()) - 2 * root.trace()
    assert frechet(a, b) == pytest.approx(expected, rel=1e-4)


def test_moments_are_the_samples():
    x = features(101, 5, "m", 3.0, 1000.0)
    whole = Moments.of(x)
    torch.testing.assert_close(whole.mean, x.mean(0))
    torch.testing.assert_close(whole.covariance, torch.cov(x.T))
    assert whole.n == 101


def test_bias_at_finite_n():
    """Two sets of 400 of one Gaussian: the mean distance over 40 repeats is the predicted bias within 5 %."""
    variances = torch.tensor([4.0, 1.0, 1.0, 0.25, 0.25, 0.1]).double()
    found = []
    for i in range(40):
        a, b = (features(400, 6, f"{side}{i}") * variances.sqrt() for side in "ab")
        found.append(frechet(Moments.of(a), Moments.of(b)))
    mean = sum(found) / len(found)
    assert frechet_bias(torch.diag(variances), 400, 400) == pytest.approx(mean, rel=0.08)
    # one variance: 2 l/n for the mean, l/n for the variance
    assert frechet_bias(torch.tensor([[3.0]]), 100, 100) == pytest.approx(2 * 3 / 100 + 3 / 100)
    assert frechet_bias(torch.tensor([[3.0]]), 100) == pytest.approx((2 * 3 / 100 + 3 / 100) / 2)


def test_names():
    assert distance_name("inception") == "FID"
    assert distance_name("mnist") == "FD-mnist"


def test_refusals():
    with pytest.raises(Refused, match="1 of 3 images have features that are not finite"):
        Moments.of(torch.tensor([[1.0], [float("nan")], [2.0]]))
    with pytest.raises(Refused, match="at least 2 images"):
        _ = Moments.of(torch.ones(1, 3)).covariance
    with pytest.raises(Refused, match="3 and 4 numbers"):
        frechet(Moments.of(torch.ones(2, 3)), Moments.of(torch.ones(2, 4)))
    with pytest.raises(Refused, match=r"\(n, D\)"):
        Moments.of(torch.ones(2, 3, 4))
