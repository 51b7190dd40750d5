"""Only what loses nothing can be encoded through, and only a denoiser itself can say so; nobody looks inside."""

from dataclasses import dataclass

import pytest
import torch

from ddim import Clip, Denoiser, GaussianDenoiser, NetworkDenoiser, Refused, Schedule, noise, tau
from ddim.denoise import NONE, Bound, DynamicThreshold, Guided, Wrapper, labels
from ddim.uses import decode, encode

SCHEDULE = Schedule.linear()
TAU = tau(1000, 5)
X = 0.5 * noise(range(3), (4,), dtype=torch.float64)
ORACLE = GaussianDenoiser(SCHEDULE, 0.1, 0.25)


class Own(Denoiser):
    """A user's wrapper that keeps the other under a name of its own and forwards what it is asked."""

    def __init__(self, other):
        self.hidden = other
        self.process = other.process

    @property
    def invertible(self):
        return self.hidden.invertible

    def __call__(self, x_t, t, conditions=NONE):
        return self.hidden(x_t, t, conditions)


class Vouched(Own):
    """One that says of itself that nothing is lost."""

    invertible = True


@pytest.mark.parametrize("method", ["naive", "implicit", "bdia", "exact"])
@pytest.mark.parametrize("clip", [Clip, DynamicThreshold])
def test_a_clip_inside_a_users_own_wrapper_is_refused(method, clip):
    for denoise in (Own(clip(ORACLE)), Own(Own(clip(ORACLE))), Bound(Own(clip(ORACLE)), labels(torch.arange(3)))):
        with pytest.raises(Refused, match=r"cannot be undone.*clip=False"):
            encode(denoise, X, TAU, method)
    x_T = encode(ORACLE, X, TAU, method)
    with pytest.raises(Refused, match="cannot be undone"):
        decode(Own(clip(ORACLE)), x_T)


def test_the_same_wrapper_around_what_loses_nothing_is_encoded():
    plain, own = encode(ORACLE, X, TAU), encode(Own(ORACLE), X, TAU)
    assert torch.equal(own.x_T, plain.x_T)
    torch.testing.assert_close(decode(Own(ORACLE), own), X, rtol=0, atol=1e-8)


def test_who_says_invertible_is_believed():
    """A clip far outside the data loses nothing; its user may say so."""
    wide = Vouched(Clip(ORACLE, -50.0, 50.0))
    torch.testing.assert_close(encode(wide, X, TAU).x_T, encode(ORACLE, X, TAU).x_T, rtol=1e-9, atol=1e-9)


def test_who_says_nothing_cannot_be_made():
    class Silent(Denoiser):
        process = SCHEDULE

        def __call__(self, x_t, t, conditions=NONE):
            return ORACLE(x_t, t)

    with pytest.raises(TypeError, match="invertible"):
        Silent()


def test_who_is_no_denoiser_is_refused_with_the_remedy():
    class Duck:
        process = SCHEDULE
        invertible = True

        def __call__(self, x_t, t, conditions=NONE):
            return ORACLE(x_t, t)

    with pytest.raises(Refused, match=r"Duck does not say .*invertible: derive it from ddim\.Denoiser"):
        encode(Duck(), X, TAU)


def test_what_every_denoiser_of_ours_says():
    network = NetworkDenoiser(lambda x, t: x, SCHEDULE)
    for kept in (network, ORACLE, Guided(network, 2.0, 3), Bound(network, labels(torch.arange(3)))):
        assert kept.invertible is True
    for lost in (Clip(network), DynamicThreshold(network), Guided(Clip(network), 2.0, 3), Bound(Clip(network))):
        assert lost.invertible is False


def test_wrappers_describe_themselves_and_what_they_hold():
    @dataclass(frozen=True)
    class Loud(Wrapper):
        volume: int = 11

        def __call__(self, x_t, t, conditions=NONE):
            return self.denoise(x_t, t, conditions)

        def describe(self):
            return {**self.denoise.describe(), "volume": self.volume}

    network = NetworkDenoiser(lambda x, t, label: 0.1 * x, SCHEDULE)
    wrapped = Bound(Loud(Guided(network, 2.0, 3)), labels(torch.tensor([0, 1, 2])))
    told = wrapped.describe()
    assert told["volume"] == 11 and told["guidance"] == 2.0 and told["label"] == [0, 1, 2]
    assert encode(wrapped, X, TAU).recipe.conditions == told
    assert Clip(network, -2.0, 2.0).describe() == {"clip": [-2.0, 2.0]}
    assert wrapped.process is SCHEDULE
    with pytest.warns(UserWarning, match="volume 3 instead of 11"):
        decode(Bound(Loud(Guided(network, 2.0, 3), 3), labels(torch.arange(3))), encode(wrapped, X, TAU))
