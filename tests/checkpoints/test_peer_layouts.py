"""Every combination of settings the readers accept: the peer's answer, and the same one from the folder we write.

The answers are of the peers' own programs (ermongroup/ddim, openai/guided-diffusion 22e0df8) with these weights.
"""

import json
import re
from pathlib import Path
from typing import Any

import peer_layouts as peers
import pytest
import torch

import ddim
from ddim.checkpoints import save_checkpoint
from ddim.checkpoints.families.diffusers.network import empty_unet
from ddim.refused import Refused

# (model_channels, channel_mult): the time sinusoid is as wide as the first level, narrower, or wider
WIDTHS = ((32, (1, 1)), (32, (2, 1)), (64, (0.5, 1)), (32, (2,)), (32, (2, 3)), (32, (1, 2, 2)))
OPENAI = peers.covering({
    "time": ((1000, False), (430, True), (430, False), (2000, True)),
    "widths": WIDTHS,
    "heads": ({"num_head_channels": 16}, {"num_heads": 1}, {"num_heads": 2}, {"num_heads": 4}),
    "attention": ((), (0,), (1,), (0, 1)),
    "num_res_blocks": (1, 2),
    "resampling": ("conv", "pool", "blocks"),
    "use_scale_shift_norm": (False, True),
    "learn_sigma": (False, True),
    "num_classes": (None, peers.CLASSES),
    "use_new_attention_order": (False, True),
    "channels": (1, 3),
})  # fmt: skip
ERMONGROUP = peers.covering({
    "ch_mult": ((1, 2), (2, 4), (2,), (2, 2, 4), (3, 1)),
    "attention": ((), (0,), (1,), (0, 1)),
    "num_res_blocks": (1, 2),
    "resamp_with_conv": (True, False),
    "ch": (32, 64),
})  # fmt: skip


def openai_network(case: dict[str, Any]) -> dict[str, Any]:
    """The part of a case that the shapes show."""
    return {
        "model_channels": case["widths"][0], "channel_mult": case["widths"][1],
        "num_res_blocks": case["num_res_blocks"], "attention": case["attention"],
        "conv_resample": case["resampling"] != "pool",
        "resblock_updown": case["resampling"] == "blocks", "use_scale_shift_norm": case["use_scale_shift_norm"],
        "learn_sigma": case["learn_sigma"], "num_classes": case["num_classes"], "channels": case["channels"],
    }  # fmt: skip


def openai_flags(case: dict[str, Any]) -> dict[str, Any]:
    T, rescaled = case["time"]
    network = {k: v for k, v in openai_network(case).items() if k not in ("attention", "channels")}
    if len(case["widths"][1]) == 1:
        network.pop("resblock_updown")  # nothing is resized
    more = {"image_size": peers.SIDE, "steps": T, "rescale_timesteps": rescaled, "noise_schedule": "cosine"}
    return network | case["heads"] | more | {"use_new_attention_order": case["use_new_attention_order"]}


def ermongroup_config(case: dict[str, Any]) -> dict[str, Any]:
    model = {"in_channels": 3, "out_ch": 3} | {k: case[k] for k in ("ch", "num_res_blocks", "resamp_with_conv")}
    return {"data": {"image_size": peers.SIDE}, "model": model | {"ch_mult": list(case["ch_mult"])}}


def name(case: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in case.items())


def said(model: ddim.Model, channels: int) -> torch.Tensor:
    k, (x, t, label) = model.checkpoint, peers.asked(channels)
    with torch.no_grad():
        return k.network(x, k.time(t + 1), None if k.num_classes is None else label)


def sampled(model: ddim.Model, channels: int) -> torch.Tensor:
    x_T = ddim.noise([0], (channels, peers.SIDE, peers.SIDE))
    return model.sample(latents=x_T, steps=3, label=None if model.checkpoint.num_classes is None else 1)


def answers_and_survives(file: Path, config: dict[str, Any], channels: int, case: str) -> None:
    """As the peer says; from the folder we write the same, bit for bit; and from diffusers, where it may run it."""
    from diffusers import UNet2DModel

    model, folder = ddim.load(file, config=config), file.parent / "folder"
    right, out = peers.answers()[case], said(model, channels)
    assert float((out - right).abs().max()) <= 1e-5 * float(right.abs().max())
    save_checkpoint(folder, model.checkpoint)
    again = ddim.load(folder)
    assert torch.equal(said(again, channels), out)
    assert torch.equal(sampled(again, channels), sampled(model, channels))
    assert again.checkpoint.schedule == model.checkpoint.schedule
    save_checkpoint(file.parent / "again", again.checkpoint)
    names = ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "model_index.json")
    assert all((folder / n).read_bytes() == (file.parent / "again" / n).read_bytes() for n in names)
    owner = json.loads((folder / "model_index.json").read_text())["unet"][0]
    assert owner == ("diffusers" if again.checkpoint.adapter.is_plain else "ddim")
    if owner == "diffusers":
        x, t, label = peers.asked(channels)
        with torch.no_grad():
            theirs = UNet2DModel.from_pretrained(folder / "unet")
            assert torch.equal(theirs(x, t, class_labels=label if theirs.class_embedding else None).sample, out)


@pytest.mark.parametrize(("learn", "small", "word"), [
    (False, True, "fixed_small"), (False, False, "fixed_large"), (True, True, "learned_range"),
])  # fmt: skip
def test_ddpms_variance_is_the_scripts(learn: bool, small: bool, word: str, tmp_path: Path) -> None:
    case = OPENAI[0] | {"learn_sigma": learn}
    torch.save(peers.filled(peers.openai(**openai_network(case))), tmp_path / "ema.pt")
    model = ddim.load(tmp_path / "ema.pt", config=openai_flags(case) | {"sigma_small": small})
    assert model.checkpoint.variance_type == word


@pytest.mark.parametrize("case", OPENAI, ids=name)
def test_openai(case: dict[str, Any], tmp_path: Path) -> None:
    torch.save(peers.filled(peers.openai(**openai_network(case))), tmp_path / "ema.pt")
    answers_and_survives(tmp_path / "ema.pt", openai_flags(case), case["channels"], f"openai {name(case)}")


@pytest.mark.parametrize("case", ERMONGROUP, ids=name)
def test_ermongroup(case: dict[str, Any], tmp_path: Path) -> None:
    torch.save(peers.filled(peers.ermongroup(**case)), tmp_path / "ckpt.pth")
    answers_and_survives(tmp_path / "ckpt.pth", ermongroup_config(case), 3, f"ermongroup {name(case)}")


@pytest.mark.parametrize(("changes", "words"), [
    ({"first_channels": 7}, "diffusers cannot build this network: num_channels (39) must be divisible"),
    ({"first_channels": 0}, "_ddim: first_channels must be a whole number from 1"),
    ({"first_channel": 32}, "unknown setting in _ddim: first_channel (the nearest is first_channels)"),
])  # fmt: skip
def test_changes_that_make_no_network(changes: dict[str, int], words: str) -> None:
    with pytest.raises(Refused, match=re.escape(words)):
        empty_unet({"block_out_channels": [32, 64], "down_block_types": ["DownBlock2D"] * 2,
                    "up_block_types": ["UpBlock2D"] * 2, "_ddim": changes}, "config.json")  # fmt: skip


def test_a_wider_sinusoid_is_for_sinusoids() -> None:
    with pytest.raises(Refused, match="time_channels is for sinusoids and tables of times, not for fourier ones"):
        empty_unet({"time_embedding_type": "fourier", "_ddim": {"time_channels": 8}}, "config.json")


def test_every_two_options_meet() -> None:
    kinds = {"a": (1, 2), "b": ("x", "y", "z"), "c": (None, 0)}
    cases = peers.covering(kinds)
    for one, two in (("a", "b"), ("a", "c"), ("b", "c")):
        assert {(c[one], c[two]) for c in cases} == {(p, q) for p in kinds[one] for q in kinds[two]}
    assert len(cases) < 12
