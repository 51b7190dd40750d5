"""An autoencoder's own folder: what diffusers wrote is read, what we write diffusers loads, what is none is refused."""

import json

import pytest
import torch

import ddim
from conftest import save_latent
from ddim.checkpoints import is_autoencoder, open_autoencoder, open_checkpoint, save_autoencoder
from ddim.process import noise
from ddim.refused import Refused


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_latent(tmp_path_factory.mktemp("latent") / "m")


def test_a_folder_of_its_own_and_a_models_are_one_autoencoder(model, tmp_path):
    import diffusers

    x = noise(range(2), (3, 16, 16)).clamp(-1, 1)
    theirs = diffusers.AutoencoderKL.from_pretrained(model / "vqvae")
    z = theirs.encode(x).latent_dist.mode() * 0.18215
    save_autoencoder(tmp_path / "ours", open_autoencoder(model), {"steps": 3})
    again = diffusers.AutoencoderKL.from_pretrained(tmp_path / "ours")
    for made in (open_autoencoder(model), open_autoencoder(model / "vqvae"), open_autoencoder(tmp_path / "ours")):
        assert torch.allclose(made.encode(x), z, atol=1e-5)
        assert torch.allclose(made.decode(z), again.decode(z / 0.18215).sample, atol=1e-5)
    assert made.facts["steps"] == 3 and is_autoencoder(tmp_path / "ours") and not is_autoencoder(model)


def test_what_is_no_autoencoder_or_no_model_is_refused(model, tmp_path):
    save_autoencoder(tmp_path / "ae", open_autoencoder(model))
    with pytest.raises(Refused, match=r"is an autoencoder alone.*`autoencoder`"):
        open_checkpoint(tmp_path / "ae")
    with pytest.raises(Refused, match="holds no autoencoder"):
        ddim.model.load_autoencoder(model / "unet")
    with pytest.raises(OSError, match="there is no autoencoder at"):
        open_autoencoder(tmp_path / "nowhere")
    config = json.loads((tmp_path / "ae/config.json").read_text())
    (tmp_path / "ae/config.json").write_text(json.dumps(config | {"scaling_factor": 0.0}))
    with pytest.raises(Refused, match="scaling_factor must be above 0"):
        open_autoencoder(tmp_path / "ae")
    (tmp_path / "ae/config.json").write_text(json.dumps(config))
    with (tmp_path / "ae/diffusion_pytorch_model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(Refused):
        open_autoencoder(tmp_path / "ae")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"measured": {"psnr": None}}, "measured must be a mapping of finite numbers"),
        ({"measured": [1]}, "measured must be a mapping"),
        ({"provenance": "word"}, "provenance must be a mapping"),
        ({"sha256": 5}, "sha256 must be a word"),
    ],
)
def test_what_its_folder_says_of_it_is_checked(model, tmp_path, said, words):
    save_autoencoder(tmp_path / "ae", open_autoencoder(model))
    told = json.loads((tmp_path / "ae/ddim.json").read_text())
    (tmp_path / "ae/ddim.json").write_text(json.dumps(told | said))
    with pytest.raises(Refused, match=rf"ddim\.json: {words}"):
        open_autoencoder(tmp_path / "ae")
