import hashlib
import importlib

import numpy as np
import pytest
import torch

from ddim import noise
from ddim.process import generator, parse_seeds


def test_row_depends_on_its_seed_only():
    batch = noise([5, 9, 2], (3, 4, 4))
    for i, seed in enumerate([5, 9, 2]):
        assert torch.equal(noise([seed], (3, 4, 4))[0], batch[i])
    assert torch.equal(noise([2, 5, 9], (3, 4, 4)), batch[[2, 0, 1]])


def test_purpose_and_step_are_independent_streams():
    base = noise([1], (2000,))
    for other in (noise([1], (2000,), step=1), noise([1], (2000,), purpose="step"), noise([2], (2000,))):
        correlation = float(torch.corrcoef(torch.stack([base[0], other[0]]))[0, 1])
        assert abs(correlation) < 5 / 2000**0.5


def test_the_stream_is_philox_under_the_documented_key():
    """Pins the bits: a change of the stream would change every user's images."""
    key = int.from_bytes(hashlib.blake2b(b"x_T/7/0", digest_size=16).digest(), "little")
    expected = np.random.Generator(np.random.Philox(key=key)).standard_normal((2, 3))
    assert np.array_equal(noise([7], (2, 3), dtype=torch.float64)[0].numpy(), expected)


def test_dtypes_share_one_draw():
    exact = noise([3], (64,), dtype=torch.float64)
    assert torch.equal(noise([3], (64,)), exact.float())
    assert torch.equal(noise([3], (64,), dtype=torch.bfloat16), exact.to(torch.bfloat16))


def test_it_is_standard_normal():
    z = noise(range(200), (500,), dtype=torch.float64)
    n = z.numel()
    assert abs(float(z.mean())) < 5 / n**0.5
    assert abs(float(z.var()) - 1) < 5 * (2 / n) ** 0.5
    assert abs(float((z**4).mean()) - 3) < 5 * (96 / n) ** 0.5
    assert abs(float(torch.corrcoef(z[:2])[0, 1])) < 5 / 500**0.5


def test_no_two_of_many_seeds_share_a_stream():
    first = {float(generator(seed, "x_T").standard_normal()) for seed in range(20_000)}
    assert len(first) == 20_000


def test_global_random_state_is_neither_read_nor_written():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one = noise([0], (4,))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    assert torch.equal(noise([0], (4,)), one)


def test_empty_and_negative():
    assert noise([], (3, 2)).shape == (0, 3, 2)
    with pytest.raises(ValueError, match="-1"):
        noise([-1], (3,))


def test_parse_seeds():
    assert parse_seeds("7") == [7]
    assert parse_seeds("1,2,5-8") == [1, 2, 5, 6, 7, 8]
    assert len(parse_seeds("0-49999")) == 50_000


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,,2", "-5", "1-2-3", "1,1", "0-3,2", "1.5", "0x3"])
def test_malformed_seeds_are_refused(text):
    with pytest.raises(ValueError, match=r"seed"):
        parse_seeds(text)


def test_more_seeds_than_a_list_should_hold_are_refused_before_it_is_built(monkeypatch):
    with pytest.raises(ValueError, match=r"more than 10000000 seeds .*'0-99999999999'"):
        parse_seeds("0-99999999999")
    assert parse_seeds("99999999999") == [99_999_999_999]  # a large seed is only one
    monkeypatch.setattr(importlib.import_module("ddim.process.randomness"), "MOST_SEEDS", 4)
    assert parse_seeds("1,5-7") == [1, 5, 6, 7]
    for text in ("0-4", "1,5-8", "5-8,1"):
        with pytest.raises(ValueError, match="more than 4 seeds"):
            parse_seeds(text)


def test_a_real_time_is_the_same_noise_in_every_number_type():
    x = noise([3], (5,), step=0.37)
    assert torch.equal(noise([3], (5,), step=np.float64(0.37)), x)
    assert not torch.equal(noise([3], (5,), step=0.38), x)
    assert torch.equal(noise([3], (5,), step=np.int64(7)), noise([3], (5,), step=7))
