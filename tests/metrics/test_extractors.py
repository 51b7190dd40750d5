"""Extractors: the bundled classifier knows digits, files are read, what is missing is named."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim.metrics import distance_name, extractor
from ddim.metrics.classifier import load_classifier
from ddim.pixels import from_uint8
from ddim.refused import Refused

DATA = Path(__file__).parents[1] / "data"


def test_the_bundled_classifier_knows_digits():
    """100 images of the MNIST test set: at least 98 right. (All 10,000: 99.45 %, docs/evaluation.md.)"""
    stored = np.load(DATA / "mnist-100.npz")
    digits = extractor("mnist")
    f, logits = digits.both(from_uint8(stored["pixels"]))
    assert f.shape == (100, 64) and logits.shape == (100, 10)
    assert int((logits.argmax(1).numpy() == stored["labels"]).sum()) >= 98
    assert sum(p.numel() for p in load_classifier().parameters()) < 150_000


def test_a_border_of_two_changes_nothing():
    x = from_uint8(np.load(DATA / "mnist-100.npz")["pixels"][:4])
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), value=-1.0)
    torch.testing.assert_close(extractor("mnist").features(padded), extractor("mnist").features(x))


def test_small_scans_are_brought_to_the_layout_of_mnist():
    """scikit-learn's 8x8 digits, which the classifier never saw: at least 95 % right (stretched to 28x28: 10 %)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.from_numpy(bunch.images[:500] / 8.0 - 1.0).float()[:, None]
    right = extractor("mnist").logits(x).argmax(1).numpy() == bunch.target[:500]
    assert right.mean() > 0.95


def test_pixels_are_means_of_blocks():
    x = torch.arange(64.0 * 64.0).view(1, 1, 64, 64)
    f = extractor("pixels").features(x)
    assert f.shape == (1, 32 * 32)
    assert float(f[0, 0]) == pytest.approx((0 + 1 + 64 + 65) / 4)
    assert extractor("pixels").logits(x) is None


class _Two(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :5] * 2.0, x.flatten(1)[:, :3]


def test_torchscript_and_exported_programs(tmp_path):
    x = torch.linspace(-1, 1, 3 * 16).view(3, 1, 4, 4)
    torch.jit.trace(_Two(), x).save(str(tmp_path / "two.pt"))
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(_Two(), (x,), dynamic_shapes={"x": {0: batch}}), tmp_path / "exported.pt2")
    for name in ("two.pt", "exported.pt2"):
        e = extractor(str(tmp_path / name))
        f, logits = e.both(x)
        assert torch.equal(f, x.flatten(1)[:, :5] * 2.0)
        assert torch.equal(logits, x.flatten(1)[:, :3])
        assert e.name == Path(name).stem and len(e.weights_hash) == 64


def test_no_file_is_called_by_the_name_of_a_standard_one(tmp_path):
    x = torch.zeros(2, 1, 4, 4)
    torch.jit.trace(_Two(), x).save(str(tmp_path / "inception.pt"))
    assert distance_name(extractor(str(tmp_path / "inception.pt")).name) == "FD-file-inception"
    torch.jit.trace(torch.nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 4, 4)).save(str(tmp_path / "colour.pt"))
    with pytest.raises(Refused, match=r"colour\.pt cannot take images of shape \(2, 1, 4, 4\)"):
        extractor(str(tmp_path / "colour.pt")).both(x)


def test_refusals(tmp_path):
    with pytest.raises(Refused, match="there is no extractor 'vgg': choose mnist, colour, inception, dinov2, "):
        extractor("vgg")
    with pytest.raises(Refused, match="reads grey images, got 3 channels"):
        extractor("mnist").features(torch.zeros(1, 3, 28, 28))
    (tmp_path / "bad.pt").write_bytes(b"no program")
    with pytest.raises(Refused, match=r"bad\.pt is no TorchScript or ExportedProgram"):
        extractor(str(tmp_path / "bad.pt"))
    (tmp_path / "bad.pt2").write_bytes(b"no program")
    with pytest.raises(Refused, match=r"bad\.pt2 is no TorchScript or ExportedProgram"):
        extractor(str(tmp_path / "bad.pt2"))


@pytest.mark.parametrize(("name", "package"), [("inception", "torch_fidelity"), ("dinov2", "transformers")])
def test_a_missing_extra_is_named(name, package, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr("ddim.metrics.extractors.find_spec", lambda n: None if n == package else found(n))
    with pytest.raises(Refused, match=rf"pip install 'ddim\[{name}\]'"):
        extractor(name)
