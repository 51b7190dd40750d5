"""Latents: they compute like their tensor, come back from their file, join and part, and know their recipe."""

import json
import warnings
from dataclasses import replace

import pytest
import torch
from rough_network import LABELS, SCHEDULE, TAU, images, network
from torch import nn

from ddim import NetworkDenoiser, tau
from ddim.denoise import Bound, Conditions, Guided, labels
from ddim.uses import Latents, decode, encode


def test_latents_behave_like_their_tensor():
    z = encode(network(), images(), TAU, "naive")
    assert z[0].shape == (1, 8, 8) and len(z) == 5 and z.shape == (5, 1, 8, 8)
    assert torch.equal(torch.stack([z[0], z[1]]), z.x_T[:2])
    assert torch.equal(torch.cat([z, z]), torch.cat([z.x_T, z.x_T]))
    assert torch.equal(torch.stack(list(z)), z.x_T)
    assert torch.mean(z) == z.x_T.mean()
    assert "5 images" in str(z.certificate)


def test_a_file_of_latents_comes_back_whole(tmp_path):
    z = encode(network(6.0), images(), TAU, label=LABELS)
    assert z.states is not None and int(z.coupled.sum()) > 0
    z.save(tmp_path / "z.safetensors")
    back = Latents.load(tmp_path / "z.safetensors")
    assert torch.equal(back.x_T, z.x_T) and torch.equal(back.states, z.states) and back.recipe == z.recipe
    assert back.unsolved == z.unsolved and torch.equal(back.coupled, z.coupled)
    assert torch.equal(back.certificate.psnr, z.certificate.psnr)
    torch.testing.assert_close(decode(network(6.0), back, label=LABELS), images(), rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="exists"):
        z.save(tmp_path / "z.safetensors")
    (tmp_path / "no.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="not a safetensors"):
        Latents.load(tmp_path / "no.safetensors")
    with pytest.raises(ValueError, match="no file"):
        Latents.load(tmp_path / "missing.safetensors")


def test_batches_join_in_order():
    denoise, x = network(6.0), images()
    whole = encode(denoise, x, TAU, "bdia", label=LABELS)
    parts = [encode(denoise, x[i], TAU, "bdia", label=LABELS[i]) for i in (slice(0, 2), slice(2, 5))]
    joined = Latents.join(parts)
    torch.testing.assert_close(joined.x_T, whole.x_T, rtol=0, atol=1e-4)
    assert joined.recipe == whole.recipe
    torch.testing.assert_close(decode(denoise, joined, label=LABELS), x, rtol=0, atol=1e-3)
    with pytest.raises(ValueError, match="different recipes"):
        Latents.join([parts[0], encode(denoise, x, tau(1000, 5), "bdia", label=LABELS)])
    with pytest.raises(ValueError, match="different recipes"):  # labels of some images only
        Latents.join([encode(denoise, x[:2], TAU, "bdia"), parts[1]])


def test_parts_are_what_was_joined():
    """Some images coupled, some not, so that the states of the coupled ones must be found among them."""
    guided = Guided(network(6.0), 2.0, 4, interval=(0, 80))
    x = images()
    parts = [encode(Bound(guided, labels(LABELS[i])), x[i], TAU) for i in (slice(0, 2), slice(2, 5))]
    whole = Latents.join(parts)
    whole = replace(whole, coupled=torch.tensor([True, False, True, True, False]), names=tuple("abcde"),
                    states=torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 2, 1, 8, 8), unsolved=(1, 3))  # fmt: skip
    assert whole.recipe.conditions["interval"] == [0, 80] and whole.recipe.conditions["label"] == LABELS.tolist()
    part = whole.part(1, 4)
    assert torch.equal(part.x_T, whole.x_T[1:4]) and part.names == ("b", "c", "d") and part.unsolved == (0, 2)
    assert part.states[:, 0, 0, 0, 0].tolist() == [1.0, 2.0] and part.coupled.tolist() == [False, True, True]
    assert part.recipe.conditions["label"] == [1, 2, 3] and part.recipe.conditions["interval"] == [0, 80]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the same recipe: the images come back
        torch.testing.assert_close(
            decode(guided, Latents.join(parts).part(2, 5), label=LABELS[2:]), x[2:], rtol=0, atol=2e-3
        )


def test_more_labels_than_a_tensor_is_written_out_for():
    many = torch.arange(5000) % 4
    z = encode(network(), images(1).expand(5000, 1, 8, 8)[:, :, :2, :2], (1000, 500, 0), "naive", label=many)
    assert z.recipe.conditions["label"] == many.tolist()


def test_another_exported_network_is_another_recipe():
    """It has no parameters of torch's: its file stands for them."""

    class Elsewhere(nn.Module):
        def __init__(self, sha256):
            super().__init__()
            self.sha256 = sha256

        def forward(self, x, t):
            return 0.1 * x

    first, second = (NetworkDenoiser(Elsewhere(name), SCHEDULE) for name in "ab")
    z = encode(first, images(), TAU, "naive")
    with pytest.warns(UserWarning, match="network"):
        decode(second, z)


def test_what_is_shared_is_neither_joined_nor_cut_whatever_its_length():
    """A table of as many rows as images, and a pair: a recipe must not take them for the images' own."""

    def asked(x, t, label, table, pair):
        return 0.1 * x * table.mean() + pair[0] + 0 * label.view(-1, 1, 1, 1)

    denoise, x = NetworkDenoiser(asked, SCHEDULE), images(4)
    told = Conditions({"label": torch.arange(4)}, {"table": torch.ones(4, 7), "pair": (0.1, 0.2)})
    halves = [slice(0, 2), slice(2, 4)]
    parts = [encode(denoise, x[i], TAU, "naive", conditions=told.rows(i)) for i in halves]
    whole = encode(denoise, x, TAU, "naive", conditions=told)
    joined = Latents.join(parts)
    assert joined.recipe == whole.recipe and whole.part(2, 4).recipe == parts[1].recipe
    joined_file = json.loads(json.dumps(joined.recipe.conditions))
    assert joined_file == joined.recipe.conditions and joined_file["label"] == [0, 1, 2, 3]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(denoise, joined, conditions=told)
        decode(denoise, whole.part(2, 4), conditions=told.rows(halves[1]))
    other = Conditions(told.per_image, {"table": 2 * torch.ones(4, 7), "pair": (0.1, 0.2)})
    with pytest.warns(UserWarning, match="table"):
        decode(denoise, whole, conditions=other)
