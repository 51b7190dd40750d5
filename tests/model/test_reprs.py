"""What a notebook prints of our objects is a line or two, whatever they hold."""

import numpy as np
import pytest
import torch
from PIL import Image

from ddim import Conditions
from ddim.data import open_images


@pytest.fixture(scope="module")
def encoded(tiny):
    return tiny.encode(tiny.sample(5, steps=4, label=1), steps=4, label=1)


def test_short(tiny, encoded):
    told = Conditions({"text": torch.zeros(4, 7, 9)}, {"strength": 0.5})
    sampler = tiny.sampler(steps=4, label=torch.arange(900) % 3)
    for thing in (tiny, tiny.schedule, tiny.space, encoded, encoded.certificate, told, sampler):
        assert len(repr(thing)) < 240 and "\n" not in repr(thing), repr(thing)


def test_telling(encoded):
    assert repr(encoded).startswith("Latents(5, 1, 8, 8), exact, 4 steps from 1000: 5 images: round trip ")
    carried = bool(encoded.coupled.all())  # by the coupled scheme, all of them: then there is no solve to speak of
    assert ("worst residual none" in repr(encoded)) == carried
    assert repr(encoded.certificate) == str(encoded.certificate)
    assert "text per image: float32 (4, 7)" in repr(Conditions({"text": torch.zeros(4, 7)}))
    assert repr(Conditions()) == "Conditions(none)"
    assert repr(encoded.part(0, 0).certificate) == "no images"


def test_a_data_set_shows_its_first_pictures(tmp_path):
    for i in range(3):
        Image.fromarray(np.full((8, 8), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    images = open_images(tmp_path, cache=tmp_path / "cache")
    assert "3 images" in repr(images) and len(repr(images)) < 240
    assert "data:image/png" in images._repr_html_() and "the first 3" in images._repr_html_()
