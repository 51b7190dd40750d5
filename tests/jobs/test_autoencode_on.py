"""An autoencoder trained on: it begins as what it was, keeps its architecture, and says where it came from."""

import json

import diffusers
import pytest
import torch

import ddim
from ddim.cli.argv import main
from ddim.data import open_images
from ddim.jobs import AutoencoderPlan, AutoencoderRecipe
from ddim.nets import Autoencoder
from ddim.refused import Refused

MORE = ["--batch-size", "4", "--held-out", "40", "--warmup", "0", "--precision", "fp32", "--preview-every", "0"]
WEIGHTS = "diffusion_pytorch_model.safetensors"


def ran(capsys, *words, code=0):
    with pytest.raises(SystemExit) as stop:
        main(["train-autoencoder", *(str(w) for w in words)])
    out = capsys.readouterr()
    assert stop.value.code == code, out.err
    return out.out if code == 0 else out.err.splitlines()[-1]


@pytest.fixture(params=["kl", "tiny"])
def first(request, tmp_path, capsys):
    small = ["--kind", request.param, "--factor", "2", "--width", "8", "--latent-channels", "3"]
    ran(capsys, "digits", "--out", tmp_path / "first", *small, *MORE, "--max-steps", 3)
    return tmp_path / "first"


def test_at_a_rate_of_nothing_it_stays_what_it_was(first, tmp_path, capsys):
    """Its kind, factor and channels are not asked for again; what it gives back, and the sense of its latents, stay."""
    ran(capsys, "digits", "--out", tmp_path / "on", "--init", first, *MORE, "--lr", 1e-12, "--max-steps", 1)
    one, two = (ddim.model.load_autoencoder(place) for place in (first, tmp_path / "on"))
    x = ddim.pixels.from_uint8(open_images("digits").pixels[:20])
    assert torch.allclose(one.decode(one.encode(x)), two.decode(two.encode(x)), atol=1e-4)
    assert torch.allclose(one.encode(x), two.encode(x), atol=0.02) and two.channels == 3
    assert json.loads((first / "config.json").read_text())["_class_name"] == two.kind
    told = two.facts["provenance"]
    assert told["init"]["sha256"] == one.sha256 and told["init"]["provenance"]["steps"] == 3
    assert told["recipe"]["latent_channels"] == 3


def test_it_learns_and_goes_on_bit_for_bit(first, tmp_path, capsys):
    words = ["digits", "--init", first, *MORE, "--critic-from", 1]
    ran(capsys, *words, "--out", tmp_path / "a", "--max-steps", 4)
    ran(capsys, *words, "--out", tmp_path / "b", "--max-steps", 2)
    ran(capsys, "--resume", tmp_path / "b", "--max-steps", 4)
    assert (tmp_path / "a" / WEIGHTS).read_bytes() == (tmp_path / "b" / WEIGHTS).read_bytes()
    assert (tmp_path / "a" / WEIGHTS).read_bytes() != (first / WEIGHTS).read_bytes()
    other = [*words[:2], tmp_path / "a", *words[3:], "--out", tmp_path / "b", "--resume"]
    assert "init was" in ran(capsys, *other, code=2)


def test_what_cannot_be_trained_on_is_refused(tmp_path, capsys):
    assert "takes pictures of 3 channels, got 1" in ran(
        capsys, "digits", "--out", tmp_path / "a", "--init", "cifar10-ae", *MORE, code=2
    )
    codes = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, in_channels=1,
        block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, latent_channels=2, out_channels=1,
    )  # fmt: skip
    with pytest.raises(Refused, match="`init` is a VQModel; trained here are AutoencoderKL and AutoencoderTiny"):
        AutoencoderPlan(
            tmp_path / "a", open_images("digits"), AutoencoderRecipe(factor=2), init=Autoencoder(codes, "none")
        )
    assert not (tmp_path / "a").exists()
