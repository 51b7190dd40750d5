"""Conditions: what is an image's own and what is shared is said once, and every wrapper keeps to it."""

import pytest
import torch

from ddim import Clip, Conditions, NetworkDenoiser, Refused, Schedule, noise, sample, tau
from ddim.denoise import NONE, Bound, DynamicThreshold, Guided, bound, labels
from ddim.solve import Implicit, end_of, trajectory
from ddim.uses import encode, inpaint

SCHEDULE = Schedule.linear()
TABLE = torch.arange(28.0).view(4, 7)  # four rows: as many as images in some batches
TAU = tau(1000, 4)


class Recorder:
    """A network that remembers the shapes of its conditions, and whose answer is an image's own `key`."""

    def __init__(self):
        self.seen = []

    def __call__(self, x, t, key, table, word="plain", label=None):
        self.seen.append((len(x), tuple(key.shape), tuple(table.shape), word))
        assert len(x) == len(key)
        return 0.3 * torch.tanh(x * key.view(-1, *([1] * (x.ndim - 1))))


def told(n):
    return Conditions({"key": torch.linspace(0.5, 3.0, n, dtype=torch.float64)}, {"table": TABLE, "word": "w"})


def test_rows_take_the_images_and_leave_what_is_shared():
    c = Conditions({"label": torch.tensor([3, 4, 5]), "text": torch.arange(12.0).view(3, 4)}, {"table": TABLE})
    picked = c.rows(torch.tensor([2, 0]))
    assert picked.per_image["label"].tolist() == [5, 3]
    assert torch.equal(picked.per_image["text"], c.per_image["text"][[2, 0]])
    assert picked.shared["table"] is TABLE
    assert c.rows(slice(1, 2)).per_image["label"].tolist() == [4]
    assert Conditions(shared={"table": TABLE}).rows(torch.tensor([3])).shared["table"] is TABLE


def test_null_rows_follow_the_given_ones():
    weights = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]])
    c = Conditions({"label": torch.tensor([0, 1]), "mix": weights, "text": torch.ones(2, 3)}, {"table": TABLE})
    both = c.with_null({"label": 7, "mix": 2, "text": torch.zeros(3)})
    assert both.per_image["label"].tolist() == [0, 1, 7, 7] and both.per_image["label"].dtype == torch.int64
    assert both.per_image["mix"].tolist() == [*weights.tolist(), [0, 0, 1], [0, 0, 1]]
    assert both.per_image["text"].tolist() == [[1, 1, 1]] * 2 + [[0, 0, 0]] * 2
    assert both.shared["table"] is TABLE
    kept = c.with_null({"label": 7})
    assert torch.equal(kept.per_image["text"], torch.ones(4, 3))  # what has no null is said to both halves
    with pytest.raises(Refused, match="'table', which was not given with one row an image"):
        c.with_null({"table": 0})


def test_both_together_the_later_one_wins():
    first = Conditions({"label": torch.tensor([1, 2])}, {"word": "a", "size": 3})
    later = Conditions({"size": torch.tensor([8, 9])}, {"label": "none", "extra": 1})
    both = first | later
    assert both.shared == {"word": "a", "label": "none", "extra": 1}
    assert list(both.per_image) == ["size"] and both.per_image["size"].tolist() == [8, 9]
    assert (first | NONE).arguments.keys() == first.arguments.keys() == {"label", "word", "size"}
    assert not NONE and not labels(None) and labels(torch.tensor([1])) and first


def test_as_json_writes_classes_out_and_what_is_long_as_its_hash():
    long = torch.zeros(4097, dtype=torch.float32)
    c = Conditions({"label": torch.tensor([1, 2])}, {"word": "a", "pair": (1, 2), "table": TABLE, "long": long})
    found = c.as_json()
    assert found["label"] == [1, 2] and found["word"] == "a" and found["pair"] == {"shared": [1, 2]}
    assert found["table"].startswith("tensor ")  # lists are the images' own: see uses.Latents
    assert found["long"].startswith("tensor ") and len(found["long"]) < 30
    other = long.clone()
    other[-1] = 1e-7
    assert Conditions(shared={"long": other}).as_json()["long"] != found["long"]
    assert labels(torch.arange(5000)).as_json()["label"] == list(range(5000))


@pytest.mark.parametrize(
    ("per_image", "shared", "says"),
    [
        ({"a": torch.zeros(2), "b": torch.zeros(3)}, {}, r"their lengths are \{'a': 2, 'b': 3\}"),
        ({"a": 3}, {}, "'a' is per image: it must be a tensor"),
        ({"a": [1, 2]}, {}, "'a' is per image: it must be a tensor"),
        ({"a": torch.tensor(1.0)}, {}, "one row an image"),
        ({"a": torch.zeros(2)}, {"a": 1}, "'a' is given per image and as shared"),
    ],
)
def test_what_cannot_be_is_refused_when_made(per_image, shared, says):
    with pytest.raises(Refused, match=says):
        Conditions(per_image, shared)


@pytest.mark.parametrize("wrap", [lambda d: d, Clip, DynamicThreshold, lambda d: Bound(Clip(d))])
def test_another_number_of_rows_than_images_is_refused(wrap):
    denoise = wrap(NetworkDenoiser(Recorder(), SCHEDULE))
    with pytest.raises(Refused, match="'key' has 3 rows for 2 images"):
        denoise(noise([0, 1], (3,)), 500, told(3))


@pytest.mark.parametrize("batch", [1, 3, 4, 8])
@pytest.mark.parametrize("wrap", [Clip, lambda d: d, lambda d: bound(d, Conditions(shared={"word": "w"}))])
def test_a_shared_table_stays_as_it_is_at_every_batch_size(batch, wrap):
    """It used to be taken for per-image, and doubled, when the batch had as many images as it has rows."""
    network, label = Recorder(), torch.zeros(batch, dtype=torch.int64)
    guided = Guided(wrap(NetworkDenoiser(network, SCHEDULE)), 3.0, 7)
    guided(noise(range(batch), (2,)), 500, told(batch) | labels(label))
    assert network.seen == [(2 * batch, (2 * batch,), (4, 7), "w")]


@pytest.mark.parametrize("n", [4, 5])
def test_conditions_follow_their_image_as_rows_drop_out(n):
    """Of the implicit solve: images of small keys are solved sooner than those of large ones."""
    network = Recorder()
    denoise, x = NetworkDenoiser(network, SCHEDULE), noise(range(n), (6,), dtype=torch.float64)
    together = encode(denoise, x, TAU, "implicit", conditions=told(n))
    assert {rows for rows, *_ in network.seen} > {n} and {table for _, _, table, _ in network.seen} == {(4, 7)}
    for i in range(n):
        own = told(n).rows(torch.tensor([i]))
        alone = encode(denoise, x[i : i + 1], TAU, "implicit", conditions=own)
        torch.testing.assert_close(together.x_T[i], alone.x_T[0], rtol=1e-7, atol=1e-8)
    walk = trajectory(bound(denoise, told(n)), Implicit(tolerance=1e-9, difference=1e-6), TAU[::-1], x)
    torch.testing.assert_close(end_of(walk), together.x_T, rtol=1e-7, atol=1e-8)


def test_conditions_follow_their_image_through_inpainting():
    network = Recorder()
    denoise, x = NetworkDenoiser(network, SCHEDULE), noise(range(4), (6,), dtype=torch.float64)
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[1], mask[2, :3], mask[3, 3:] = True, True, True  # one has nothing to paint, one everything
    together = inpaint(denoise, x, mask, TAU, seeds=range(4), resample=2, conditions=told(4))
    assert {table for _, _, table, _ in network.seen} == {(4, 7)} and {r for r, *_ in network.seen} == {1, 2}
    for i in range(4):
        one = slice(i, i + 1)
        alone = inpaint(denoise, x[one], mask[one], TAU, seeds=[i], resample=2, conditions=told(4).rows(one))
        torch.testing.assert_close(together[i], alone[0], rtol=1e-9, atol=1e-9)


def test_a_bound_denoiser_knows_its_rows_and_what_a_call_adds_wins():
    network = Recorder()
    denoise = Bound(NetworkDenoiser(network, SCHEDULE), told(4))
    x = noise(range(4), (2,), dtype=torch.float64)
    whole, part = denoise(x, 500), denoise.rows(torch.tensor([3, 1]))(x[[3, 1]], 500)
    torch.testing.assert_close(part.eps, whole.eps[[3, 1]], rtol=1e-12, atol=1e-12)
    denoise(x, 500, Conditions(shared={"word": "other"}))
    assert network.seen[-1][-1] == "other"
    assert denoise.describe()["word"] == "w"
    assert torch.equal(sample(denoise, x, TAU), sample(denoise.denoise, x, TAU, conditions=told(4)))
