"""`PixelSpace`: the way between states and pictures in [-1, 1], there and back."""

from dataclasses import FrozenInstanceError

import pytest
import torch

from ddim import noise
from ddim.pixels import PixelSpace, Space

RANGES = [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-0.5, 0.5), (-3.0, 5.0)]


@pytest.mark.parametrize("data_range", RANGES)
def test_decode_of_encode_is_the_picture_and_the_ends_are_the_range(data_range):
    space, x = PixelSpace.of((3, 4, 4), data_range), noise([0, 1], (3, 4, 4), dtype=torch.float64)
    torch.testing.assert_close(space.decode(space.encode(x)), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(space.encode(space.decode(x)), x, rtol=1e-12, atol=1e-10)
    ends = space.encode(torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)).tolist()
    assert ends == pytest.approx([data_range[0], sum(data_range) / 2, data_range[1]])


@pytest.mark.parametrize("data_range", RANGES)
def test_unit_is_how_far_apart_pictures_are_whose_states_differ_by_1(data_range):
    space, z = PixelSpace.of((1, 2, 2), data_range), noise([3], (1, 2, 2), dtype=torch.float64)
    apart = space.decode(z + 1.0) - space.decode(z)
    torch.testing.assert_close(apart, torch.full_like(apart, space.unit))


def test_minus_1_to_1_is_left_alone_bit_for_bit():
    space, x = PixelSpace.of((1, 2, 2)), noise([0], (1, 2, 2))
    assert space.encode(x) is x and space.decode(x) is x and space.unit == 1.0


def test_it_is_frozen_and_knows_both_shapes():
    space = PixelSpace.of((3, 8, 8), (0.0, 1.0))
    assert isinstance(space, Space) and space.state_shape == space.image_shape == (3, 8, 8)
    assert space == PixelSpace.of((3, 8, 8), (0.0, 1.0)) != PixelSpace.of((3, 8, 8))
    with pytest.raises(FrozenInstanceError):
        space.low = 0.5
