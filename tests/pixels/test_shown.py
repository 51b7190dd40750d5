"""Pictures for notebooks: every picture is there, at its place, in its own levels."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from ddim.pixels import show
from ddim.refused import Refused


def shown(pictures):
    """The image inside the HTML."""
    (data,) = re.findall(r"data:image/png;base64,([\w+/=]+)", pictures._repr_html_())
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_hundred_images_are_a_hundred_pictures():
    x = torch.linspace(-1, 1, 100)[:, None, None, None].expand(100, 1, 84, 84)
    found = shown(show(x))
    assert found.shape == (2 + 10 * 86, 2 + 10 * 86)
    levels = [int(found[45 + 86 * (i // 10), 45 + 86 * (i % 10)]) for i in range(100)]
    assert levels == [round(255 * i / 99) for i in range(100)]


def test_small_ones_are_enlarged_and_colours_stay():
    x = torch.full((2, 3, 8, 8), -1.0)
    x[1, 0] = 1.0
    found = shown(show(x, 2))
    assert found.shape == (2 + 90, 2 + 2 * 90, 3)  # 11 times 8 is the first above 84, a gap of 2 each
    assert found[40, 40].tolist() == [0, 0, 0] and found[40, 130].tolist() == [255, 0, 0]


def test_one_picture_a_plane_and_numpy_as_they_come():
    plane = torch.tensor([[-1.0, 1.0], [0.0, 3.0]])
    expected = shown(show(plane, scale=1))
    assert expected[2:4, 2:4].tolist() == [[0, 255], [128, 255]]
    for same in (plane[None], plane[None, None], expected[2:4, 2:4].copy(), expected[None, 2:4, 2:4, None].copy()):
        assert np.array_equal(shown(show(same, scale=1)), expected)


def test_words_and_files(tmp_path):
    pictures = show(torch.zeros(3, 1, 4, 4), words="a < b")
    assert "a &lt; b" in pictures._repr_html_() and "a < b" in repr(pictures)
    assert "3 pictures, 4x4 grey" in repr(show(torch.zeros(3, 1, 4, 4)))
    pictures.save(tmp_path / "x.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), shown(pictures))


@pytest.mark.parametrize(
    "x",
    [torch.zeros(2, 4, 8, 8), torch.zeros(0, 1, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(5),
     np.zeros((4, 8, 8, 3)), np.zeros((2, 8, 8, 2), np.uint8)],
)  # fmt: skip
def test_what_is_no_picture_is_refused(x):
    with pytest.raises(Refused, match="pictures"):
        show(x)
