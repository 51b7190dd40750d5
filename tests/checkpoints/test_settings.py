"""A peer's settings, misspelt or of another type: one line that names the file and the setting, never a wrong image."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ddim
from ddim.checkpoints import open_checkpoint, read_settings
from ddim.cli.commands.import_ import merged
from ddim.refused import Refused
from ddim.stored import from_yaml

GOLDEN = Path(__file__).parents[1] / "data/golden"
ERMON = GOLDEN / "ermongroup/ckpt/ckpt.pth"
LUCID = GOLDEN / "lucidrains/pred-v-sigmoid/model-1.pt"
MNIST = GOLDEN / "diffusers/mnist-like/pipeline"
ADM = GOLDEN / "guided-diffusion/adm-legacy-attention/ema_0.9999_000100.pt"
YAML = yaml.safe_load((ERMON.parent / "config.yml").read_text())
# configs/bedroom.yml as published, with what the programs grown from it add; none of it is an unknown name
BEDROOM = {
    "data": {
        "dataset": "LSUN", "category": "bedroom", "image_size": 16, "channels": 3, "logit_transform": False,
        "uniform_dequantization": False, "gaussian_dequantization": False, "random_flip": True, "rescaled": True,
        "num_workers": 32, "out_of_dist": True,
    },
    "model": {
        "type": "simple", "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1,
        "attn_resolutions": [8], "dropout": 0.0, "var_type": "fixedsmall", "ema_rate": 0.999, "ema": True,
        "resamp_with_conv": True,
    },
    "diffusion": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_diffusion_timesteps": 1000},
    "training": {"anything": 1}, "sampling": {"anything": 1}, "optim": None,
}  # fmt: skip


def refused(file: Path, settings: dict[str, Any], *words: str) -> None:
    with pytest.raises(Refused) as caught:
        open_checkpoint(file, config=settings)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for word in (file.name, *words):
        assert word in message, message


def ermon(**changes: Any) -> dict[str, Any]:
    """The golden YAML with single settings ("data.image_size") or whole sections ("data") replaced."""
    settings = {name: dict(inner) for name, inner in YAML.items()}
    for name, value in changes.items():
        section, _, last = name.partition("__")
        if last:
            settings[section][last] = value
        else:
            settings[section] = value
    return settings


@pytest.mark.parametrize(
    ("wrong", "name", "nearest"),
    [
        ({"data": {"rescale": False}}, "data.rescale ", "data.rescaled"),
        ({"diffusion": {"beta_shedule": "quad"}}, "diffusion.beta_shedule", "diffusion.beta_schedule"),
        ({"model": {"bogus": 1}}, "model.bogus", "model."),
        ({"model": {5: 1, "bogus": 1}}, "model.5", "model.bogus"),
        ({"dat": {"rescaled": False}}, "dat ", "nearest is data"),
    ],
)
def test_ermongroups_misspelt_settings(wrong: dict[str, Any], name: str, nearest: str) -> None:
    refused(ERMON, wrong, name, nearest, "unknown")


def test_every_setting_of_the_published_yaml_is_known() -> None:
    k = open_checkpoint(ERMON, config=BEDROOM)
    assert k.shape == (3, 16, 16) and k.schedule == ddim.Schedule.linear(1000) and k.data_range == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": 5}, ("data is a section", "`set` data.NAME=VALUE", "5")),
        ({"diffusion": 3}, ("diffusion is a section", "3")),
        ({"model": None}, ("model is a section", "None")),
        ({"data__image_size": [32, 32]}, ("data.image_size must be a whole number", "[32, 32]")),
        ({"data__image_size": 0}, ("data.image_size", "0")),
        ({"data__channels": 1}, ("data.channels = 1", "weights say 3")),
        ({"data__rescaled": [1]}, ("data.rescaled must be true or false", "[1]")),
        ({"model__dropout": "much"}, ("model.dropout", "'much'")),
        ({"diffusion__beta_start": [1]}, ("diffusion.beta_start", "[1]")),
        ({"diffusion__beta_end": 10**400}, ("diffusion.beta_end",)),
        ({"diffusion__beta_schedule": ["linear"]}, ("diffusion.beta_schedule", "['linear']", "quad")),
        ({"diffusion__num_diffusion_timesteps": 10.5}, ("diffusion.num_diffusion_timesteps", "10.5")),
    ],
)
def test_ermongroups_settings_of_another_type(changes: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(ERMON, ermon(**changes), *words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"diffusion": {"image_size": 16, "objectiv": "pred_x0"}}, ("diffusion.objectiv ", "diffusion.objective")),
        ({"diffusion": {"image_size": 16, "dim": 16}}, ("diffusion.dim ",)),
        ({"unet": {"sampling_timesteps": 10}}, ("unet.sampling_timesteps",)),
        ({"difusion": {}}, ("difusion ", "diffusion")),
        ({"unet": 5}, ("unet is a section", "5")),
        ({"diffusion": None}, ("diffusion is a section",)),
        ({"diffusion": {"image_size": 32.5}}, ("diffusion.image_size", "32.5")),
        ({"diffusion": {"image_size": -1}}, ("diffusion.image_size", "-1")),
        ({"diffusion": {"image_size": [16, 16, 3]}}, ("diffusion.image_size", "[16, 16, 3]")),
        ({"diffusion": {"image_size": 16, "objective": ["pred_v"]}}, ("diffusion.objective", "pred_x0")),
        ({"diffusion": {"image_size": 16, "beta_schedule": "cubic"}}, ("diffusion.beta_schedule", "cubic", "sigmoid")),
        ({"diffusion": {"image_size": 16, "timesteps": 10}}, ("diffusion.timesteps = 10", "1000")),
        ({"unet": {"dim": 32}, "diffusion": {"image_size": 16}}, ("unet.dim = 32", "16")),
        ({"unet": {"full_attn": True}, "diffusion": {"image_size": 16}}, ("unet.full_attn",)),
        ({"unet": {"sinusoidal_pos_emb_theta": 100}}, ("unet.sinusoidal_pos_emb_theta = 100", "10000")),
        ({"unet": {"random_fourier_features": True}}, ("random sinusoids",)),
    ],
)
def test_lucidrains_settings(settings: dict[str, Any], words: tuple[str, ...]) -> None:
    refused(LUCID, settings, *words)


def test_every_argument_of_lucidrains_constructors_is_known() -> None:
    unet = {
        "dim": 16, "init_dim": None, "out_dim": None, "dim_mults": (1, 2), "channels": 3, "self_condition": False,
        "learned_variance": False, "learned_sinusoidal_cond": False, "random_fourier_features": False,
        "learned_sinusoidal_dim": 16, "sinusoidal_pos_emb_theta": 10000, "dropout": 0.0, "attn_dim_head": 32,
        "attn_heads": 4, "full_attn": None, "flash_attn": False,
    }  # fmt: skip
    diffusion = {
        "image_size": 16, "timesteps": 1000, "sampling_timesteps": None, "objective": "pred_v",
        "beta_schedule": "sigmoid", "schedule_fn_kwargs": {}, "ddim_sampling_eta": 0.0, "auto_normalize": True,
        "offset_noise_strength": 0.0, "min_snr_loss_weight": False, "min_snr_gamma": 5, "immiscible": False,
    }  # fmt: skip
    assert open_checkpoint(LUCID, config={"unet": unet, "diffusion": diffusion}).shape == (3, 16, 16)
    tall = open_checkpoint(LUCID, config={"diffusion": {"image_size": [16, 8]}})
    assert tall.shape == (3, 16, 8)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"num_head_chanels": 16}, ("num_head_chanels ", "num_head_channels")),
        ({5: 1, "odd": 2}, ("5 ", "odd ")),
        ({"dropout": [0.1]}, ("dropout", "[0.1]")),
        ({"channel_mult": "1,one"}, ("channel_mult", "1,one")),
        ({"diffusion_steps": "many"}, ("diffusion_steps", "'many'")),
    ],
)
def test_openais_flags(flags: dict[Any, Any], words: tuple[str, ...]) -> None:
    refused(ADM, {"image_size": 16, "num_head_channels": 16} | flags, *words)


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+1e-4", "1.e-4", ".1e-3", "1.0e-4", "0.0001"])
def test_every_way_to_write_a_number(text: str) -> None:
    """YAML 1.1 reads 1e-4 as text, and so JSON's 1e-4, too."""
    assert from_yaml(text, "x") == pytest.approx(1e-4) and isinstance(from_yaml(text, "x"), float)
    assert merged({}, (f"diffusion.beta_start={text}",)) == {"diffusion": {"beta_start": pytest.approx(1e-4)}}


@pytest.mark.parametrize("text", ["e-4", "1e", "1e-4x", "'1e-4'", "cosine", "1-4", "v1e4"])
def test_words_stay_words(text: str) -> None:
    assert from_yaml(text, "x") == text.strip("'")


def test_small_betas_from_the_command_line_and_from_files(tmp_path: Path) -> None:
    right = ddim.Schedule.linear(1000, beta_start=1e-5, beta_end=0.02)
    assert open_checkpoint(MNIST, config=merged({}, ("beta_start=1e-5", "beta_end=2e-2"))).schedule == right
    assert open_checkpoint(ERMON, config=merged(YAML, ("diffusion.beta_start=1e-5",))).schedule == right
    (tmp_path / "c.json").write_text(json.dumps({"beta_start": 1e-5}))
    assert "1e-05" in (tmp_path / "c.json").read_text()
    assert open_checkpoint(MNIST, config=tmp_path / "c.json").schedule == right


@pytest.mark.parametrize("content", [b"a: 2001-99-99", b"\xff\xfe\xff", b"[" * 5000, b"a: [1,\n b"])
def test_files_that_are_no_yaml(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_bytes(content)
    with pytest.raises(Refused, match=r"c\.yml is not readable") as caught:
        read_settings(tmp_path / "c.yml")
    assert "\n" not in str(caught.value)
    with pytest.raises(Refused, match=r"--set x=\[: the value is not readable"):
        merged({}, ("x=[",))


def test_the_peers_own_names_still_load_the_golden_networks() -> None:
    assert torch.equal(
        open_checkpoint(ERMON, config=YAML).network.unet.conv_in.weight,
        open_checkpoint(ERMON, config=BEDROOM).network.unet.conv_in.weight,
    )
