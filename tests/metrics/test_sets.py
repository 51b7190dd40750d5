"""KID, precision and recall, density and coverage, Inception Score, diversity, estrangement."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

from ddim import noise
from ddim.metrics import diversity, estrangement, fidelity, inception_score, kid, mmd2, radii
from ddim.refused import Refused


def features(n, d, purpose, shift=0.0):
    return noise([3], (n, d), purpose=purpose, dtype=torch.float64)[0] + shift


class _Flat(torch.nn.Module):
    num_features = 12

    def forward(self, x):
        return x.flatten(1).double()


def test_mmd_is_the_unbiased_estimate_with_scikit_learns_kernel():
    x, y = features(30, 6, "x"), features(20, 6, "y", 0.3)
    kxx, kyy, kxy = (polynomial_kernel(a, b, degree=3, gamma=1 / 6, coef0=1) for a, b in ((x, x), (y, y), (x, y)))
    np.fill_diagonal(kxx, 0.0)
    np.fill_diagonal(kyy, 0.0)
    expected = kxx.sum() / (30 * 29) + kyy.sum() / (20 * 19) - 2 * kxy.mean()
    assert mmd2(x, y) == pytest.approx(expected, rel=1e-9)


def test_kid_equals_torchmetrics_when_the_subset_is_the_set():
    a, b = (features(40, 12, p).mul(20).add(128).to(torch.uint8).view(-1, 3, 2, 2) for p in "ab")
    metric = KernelInceptionDistance(feature=_Flat(), subsets=3, subset_size=40)
    metric.update(a, real=True)
    metric.update(b, real=False)
    assert kid(a.flatten(1), b.flatten(1), subsets=3).mean == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_kid_is_unbiased_where_the_frechet_distance_is_not():
    """Equal laws: the mean over independent pairs of small sets is 0 within 4 standard errors."""
    values = torch.tensor([mmd2(features(20, 4, f"u{i}"), features(20, 4, f"v{i}")) for i in range(200)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / math.sqrt(200)
    assert kid(features(200, 4, "u"), features(200, 4, "v", 1.0), size=50).mean > 0.5


def test_kid_depends_on_its_seed_alone():
    x, y = features(60, 4, "x"), features(60, 4, "y")
    assert kid(x, y, subsets=5, size=20) == kid(x, y, subsets=5, size=20)
    assert kid(x, y, subsets=5, size=20) != kid(x, y, subsets=5, size=20, seed=1)


def test_radii_are_scikit_learns():
    x = features(50, 3, "x")
    theirs = NearestNeighbors(n_neighbors=4).fit(x).kneighbors(x)[0][:, 3]  # the first neighbour is itself
    np.testing.assert_allclose(radii(x, 3), theirs, rtol=1e-12)


def test_fidelity_is_the_definition():
    """Loops over scikit-learn's distances, as the papers write the four measures."""
    real, fake = features(40, 3, "r"), features(30, 3, "f", 0.5)
    nn = {k: NearestNeighbors(n_neighbors=k + 1) for k in (3, 5)}
    r3, f3, r5 = (nn[k].fit(s).kneighbors(s)[0][:, k] for s, k in ((real, 3), (fake, 3), (real, 5)))
    d = np.linalg.norm(real.numpy()[:, None] - fake.numpy()[None], axis=-1)
    found = fidelity(real, fake)
    assert found.precision == pytest.approx(np.mean([(d[:, j] <= r3).any() for j in range(30)]))
    assert found.recall == pytest.approx(np.mean([(d[i] <= f3).any() for i in range(40)]))
    assert found.density == pytest.approx(sum((d[:, j] <= r5).sum() for j in range(30)) / (5 * 30))
    assert found.coverage == pytest.approx(np.mean([(d[i] <= r5[i]).any() for i in range(40)]))
    assert 0 < found.recall < 1 and 0 < found.precision < 1  # a case that can tell the measures apart


def test_fidelity_at_the_ends():
    """The same set: all 1, density (k + 1)/k by the points themselves. Far away: all 0. One mode of two: recall 1/2."""
    x = features(40, 3, "x")
    same = fidelity(x, x)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    assert same.density == pytest.approx(6 / 5)
    assert fidelity(x, x + 100) == (0.0, 0.0, 0.0, 0.0)
    half = fidelity(torch.cat([x, x + 100]), x)
    assert (half.precision, half.recall, half.coverage) == (1.0, 0.5, 0.5)


def test_inception_score_closed_forms():
    """Sure and even over K classes: K. Unsure: 1. Two certain classes with weights 1/4, 3/4: exp of that entropy."""
    sure = torch.eye(8).repeat(20, 1) * 200
    assert inception_score(sure, splits=10).mean == pytest.approx(8.0)
    assert inception_score(torch.zeros(50, 8), splits=5) == pytest.approx((1.0, 0.0))
    uneven = torch.eye(2)[[0, 1, 1, 1]].repeat(10, 1) * 200
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert inception_score(uneven, splits=1).mean == pytest.approx(math.exp(entropy))


def test_inception_score_equals_torchmetrics():
    pixels = features(40, 12, "is").mul(40).add(128).clamp(0, 255).to(torch.uint8).view(-1, 3, 2, 2)

    class Logits(_Flat):
        def forward(self, x):
            return x.flatten(1).double() / 40

    metric = InceptionScore(feature=Logits(), splits=1)
    metric.update(pixels)
    assert inception_score(Logits()(pixels), splits=1).mean == pytest.approx(float(metric.compute()[0]), rel=1e-5)


def test_diversity_is_the_mean_pairwise_distance():
    x = features(30, 4, "x")
    assert diversity(x) == pytest.approx(float(torch.pdist(x).mean()), rel=1e-12)
    assert diversity(torch.tensor([[0.0], [1.0], [3.0]])) == pytest.approx(2.0)


def test_estrangement_is_0_for_the_same_and_about_1_for_strangers():
    x, y = features(400, 16, "x"), features(400, 16, "y")
    assert estrangement(x, x) == 0.0
    assert estrangement(y, x) == pytest.approx(1.0, abs=0.03)
    assert estrangement(x + 1.0, x) == pytest.approx(4.0 / float(torch.pdist(x).mean()), rel=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: mmd2(torch.ones(1, 2), torch.ones(3, 2)), "at least 2 images in each set, got 1 and 3"),
     (lambda: kid(torch.ones(3, 2), torch.ones(3, 2), subsets=0), "at least 1 subset"),
     (lambda: radii(torch.ones(3, 2), 3), "k = 3 nearest neighbours need more than 3"),
     (lambda: inception_score(torch.ones(3, 2)), "10 splits"),
     (lambda: estrangement(torch.ones(3, 2), torch.ones(2, 2)), "the same seeds"),
     (lambda: estrangement(torch.ones(3, 2), torch.ones(3, 2)), "no scale"),
     (lambda: diversity(torch.ones(1, 2)), "at least 2")],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(Refused, match=message):
        call()
