"""Pictures in memory are the data set that the same pictures in a folder are."""

import numpy as np
import pytest
import torch

from ddim.data import Batches, images_of, open_images
from ddim.pixels import from_uint8, save_png
from ddim.refused import Refused


def pixels(channels=3):
    return np.random.default_rng(0).integers(0, 256, (6, 4, 5, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_they_are_what_a_folder_of_them_is(tmp_path, channels):
    for i, p in enumerate(pixels(channels)):
        (tmp_path / "x" / str(i % 2)).mkdir(parents=True, exist_ok=True)
        save_png(tmp_path / "x" / str(i % 2) / f"{i}.png", p)
    files = open_images(tmp_path / "x", cache=tmp_path / "cache")
    order = [0, 2, 4, 1, 3, 5]  # class by class, as in the folder
    label = torch.tensor([0, 0, 0, 1, 1, 1])
    for same in (images_of(from_uint8(pixels(channels)[order]), label), images_of(pixels(channels)[order], label)):
        assert same.report.sha256 == files.report.sha256 and same.report.shape == files.report.shape
        assert np.array_equal(same.pixels, files.pixels) and same.class_names == files.class_names
        a, b = (Batches(images, 4, seed=1, flip=True)(3) for images in (same, files))
        assert torch.equal(a.x0, b.x0) and torch.equal(a.label, b.label)
    assert images_of(pixels()).report.sha256 != images_of(pixels()[::-1]).report.sha256


@pytest.mark.parametrize(
    "x", [torch.zeros(3, 2, 4, 4), torch.zeros(3, 4, 4), torch.zeros(1, 1, 4, 4), np.zeros((3, 4, 4, 1))]
)
def test_what_is_no_data_set_is_refused(x):
    with pytest.raises(Refused, match="pictures"):
        images_of(x)
    with pytest.raises(Refused, match="need 6 classes"):
        images_of(pixels(), torch.zeros(5, dtype=torch.int64))
