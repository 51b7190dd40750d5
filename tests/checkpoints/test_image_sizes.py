"""No weight holds the image size: attention tells it where its resolutions are known; nothing invites a wrong one."""

from pathlib import Path
from typing import Any

import peer_layouts as peers
import pytest
import torch

from ddim.checkpoints import open_checkpoint
from ddim.checkpoints.families.sides import levels_at, sides_of
from ddim.refused import Refused


@pytest.mark.parametrize(
    ("attention", "resolutions", "sides"),
    [
        ([False, True, True, False], (16, 8), [32]),  # improved-diffusion's CIFAR-10
        ([False, False, True, True], (16, 8), [64]),
        ([False, True, True, True], (32, 16, 8), [64]),  # guided-diffusion's 64
        ([False, False, False, False, True, False], (16,), [256]),  # ermongroup's LSUN
        ([False, True], (16, 8), [32]),  # 8 lies below the last level
        ([True, False], (16, 8), [8]),  # images of 16 would have it on both levels
        ([True, False, True], (16, 8), []),  # neither 16 nor 8 can skip a level
        ([False, False], (16,), []),  # no attention tells nothing
        ([False, True], (8, 4), [16]),
    ],
)
def test_attention_tells_the_side(attention: list[bool], resolutions: tuple[int, ...], sides: list[int]) -> None:
    assert sides_of(attention, resolutions) == sides
    assert all(levels_at(s, resolutions, len(attention)) == attention for s in sides)


def adm(folder: Path, **more: Any) -> Path:
    network = {"model_channels": 32, "channel_mult": (1, 1, 1), "num_res_blocks": 1, "attention": (1, 2),
               "conv_resample": True, "resblock_updown": False, "use_scale_shift_norm": True, "learn_sigma": False,
               "num_classes": None}  # fmt: skip
    torch.save(peers.filled(peers.openai(**network | more)), folder / "ema.pt")
    return folder / "ema.pt"


def ermongroup(folder: Path, **more: Any) -> Path:
    network = {"ch": 32, "ch_mult": (1, 1, 1), "num_res_blocks": 1, "attention": (1,), "resamp_with_conv": True}
    torch.save(peers.filled(peers.ermongroup(**network | more)), folder / "ckpt.pth")
    return folder / "ckpt.pth"


def refusal(file: Path, config: dict[str, Any]) -> str:
    with pytest.raises(Refused) as caught:
        open_checkpoint(file, config=config)
    return str(caught.value)


def test_openai(tmp_path: Path) -> None:
    file = adm(tmp_path)
    assert open_checkpoint(file, config={"attention_resolutions": "16,8"}).shape == (3, 32, 32)
    assert open_checkpoint(file, config={"attention_resolutions": [2, 4], "image_size": 24}).shape == (3, 24, 24)
    asked = refusal(file, {})
    assert "image_size=<side> (32 if its attention is at 16 and 8, as by default in the scripts)" in asked
    assert "image_size=<side>" in refusal(file, {"attention_resolutions": [2, 4]})  # the constructor's: halvings
    wrong = refusal(file, {"attention_resolutions": "16,8", "image_size": 64})
    assert "image_size = 64" in wrong and wrong.endswith("image_size=32 fits")
    assert "halves its images 2 times, so 30x30 is not their size" in refusal(file, {"image_size": 30})
    assert "must be whole numbers and commas" in refusal(file, {"attention_resolutions": "16;8"})


def test_a_side_that_nothing_confirms_is_doubted(tmp_path: Path) -> None:
    doubt = "with 128x128 images its attention is at 64,32; published networks have it at 16,8, which 32x32 images"
    file = adm(tmp_path)
    assert any(doubt in note for note in open_checkpoint(file, config={"image_size": 128}).notes)
    for sure in ({"image_size": 32}, {"image_size": 64}, {"image_size": 128, "attention_resolutions": "64,32"}):
        assert not any("published networks have it" in note for note in open_checkpoint(file, config=sure).notes)
    cifar, words = ermongroup(tmp_path, ch_mult=(1, 1, 1, 1)), "attention is at 32; published networks have it at 16"
    assert any(words in note for note in open_checkpoint(cifar, config={"data": {"image_size": 64}}).notes)


def test_openai_networks_like_published_ones(tmp_path: Path) -> None:
    like = {"channel_mult": (1, 2, 3, 4), "attention": (2, 3)}
    k = open_checkpoint(adm(tmp_path, **like), config={})
    assert k.shape == (3, 64, 64) and any("64 has these channel multipliers" in note for note in k.notes)
    assert "image_size=<side> (32 if" in refusal(adm(tmp_path, **like | {"attention": (1, 2)}), {})
    assert "image_size=<side>" in refusal(adm(tmp_path, **like | {"attention": (0,)}), {})


def test_ermongroup(tmp_path: Path) -> None:
    file = ermongroup(tmp_path)
    assert open_checkpoint(file, config={"model": {"attn_resolutions": [4]}}).shape == (3, 8, 8)
    wrong = refusal(file, {"model": {"attn_resolutions": [16]}, "data": {"image_size": 64}})
    assert "data.image_size = 64" in wrong and wrong.endswith("data.image_size=32 fits")
    assert "data.image_size=<side> (32 if its attention is at 16" in refusal(file, {})
    assert "must be a list of whole numbers" in refusal(file, {"model": {"attn_resolutions": "16"}})
    cifar = ermongroup(tmp_path, ch_mult=(1, 1, 1, 1))
    assert open_checkpoint(cifar).shape == (3, 32, 32)
    assert "data.image_size=<side> (64 if" in refusal(ermongroup(tmp_path, ch_mult=(1, 1, 1, 1), attention=(2,)), {})


@pytest.mark.parametrize(
    "config", [{"image_size": "<side>"}, {"model_kwargs": {"image_size": "<side>"}}, {"num_heads": "<heads>"}]
)
def test_a_hint_copied_as_it_stands_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    message = refusal(adm(tmp_path), config)
    assert "is a placeholder: put what it stands for in its place" in message
    (tmp_path / "flags.yml").write_text("image_size: <side>\n")
    with pytest.raises(Refused, match="image_size=<side> is a placeholder"):
        open_checkpoint(tmp_path / "ema.pt", config=tmp_path / "flags.yml")
