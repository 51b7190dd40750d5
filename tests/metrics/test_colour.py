"""The bundled classifier of colour pictures, and which extractor images get that nobody chose one for."""

import math

import pytest
import torch

from ddim.metrics import extractor, usual
from ddim.metrics.classifier import COLOUR_CLASSES, COLOUR_WEIGHTS, load_colour_classifier
from ddim.refused import Refused


def test_it_is_small_and_its_features_lead_to_its_logits():
    look = extractor("colour")
    x = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    f, logits = look.both(x)
    assert f.shape == (5, 96) and logits.shape == (5, 10) and look.class_names == COLOUR_CLASSES
    torch.testing.assert_close(logits, load_colour_classifier()(x))
    assert COLOUR_WEIGHTS.stat().st_size <= 1_000_000


def test_any_size_is_brought_to_32_by_a_filter_that_keeps_flat_colour():
    """A flat picture is the same at any size; a fine checkerboard becomes its mean, not one of its squares."""
    look = extractor("colour")
    flat = torch.tensor([0.3, -0.2, 0.7]).view(1, 3, 1, 1)
    at = [look.features(flat.expand(1, 3, h, w)) for h, w in ((32, 32), (20, 20), (64, 96), (128, 32))]
    for f in at[1:]:
        torch.testing.assert_close(f, at[0], atol=1e-4, rtol=1e-4)
    board = (torch.arange(128)[:, None] + torch.arange(128)) % 2 * 2.0 - 1.0
    fine = look.features(board.expand(1, 3, 128, 128))
    grey = look.features(torch.zeros(1, 3, 32, 32))
    stripe = look.features(torch.ones(1, 3, 32, 32))
    assert float((fine - grey).norm()) < 0.25 * float((fine - stripe).norm())
    assert math.isfinite(float(fine.sum()))


def test_the_extractor_follows_the_channels():
    assert (usual(1), usual(3)) == ("mnist", "colour")
    with pytest.raises(Refused, match=r"4 channels.*`extractor`"):
        usual(4)
    with pytest.raises(Refused, match=r"'mnist' reads grey images, got 3 channels.*colour \(RGB\), inception, dinov2"):
        extractor("mnist").features(torch.zeros(1, 3, 28, 28))
    with pytest.raises(Refused, match="'colour' reads RGB images, got 1 channels"):
        extractor("colour").features(torch.zeros(1, 1, 32, 32))
