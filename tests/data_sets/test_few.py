"""A few images of a source: spread over it, in the model's shape, and only these are opened."""

import numpy as np
import pytest
import torch

from ddim.data import few_images
from ddim.pixels import save_png
from ddim.refused import Refused


def test_they_are_spread_evenly_and_the_others_are_not_read(tmp_path):
    for i in range(9):
        save_png(tmp_path / f"{i}.png", np.full((4, 4), 20 * i, dtype=np.uint8))
    (tmp_path / "1.png").write_bytes(b"damaged")
    found = few_images(str(tmp_path), (3, 4, 4), 3)
    levels = torch.tensor([0.0, 60.0, 120.0]) / 127.5 - 1.0
    torch.testing.assert_close(found, levels.view(3, 1, 1, 1).expand(3, 3, 4, 4))
    (tmp_path / "3.png").write_bytes(b"damaged")
    with pytest.raises(Refused, match=r"3\.png"):
        few_images(str(tmp_path), (3, 4, 4), 3)
