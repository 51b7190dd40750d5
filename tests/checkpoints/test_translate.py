"""Moving weights: each rearrangement against the operation it stands for."""

import pytest
import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch.nn import functional

from ddim.checkpoints.families.diffusers import network as build
from ddim.checkpoints.families.translate import Translation
from ddim.process import noise

X = noise([0, 1], (3, 8, 6))


@pytest.mark.parametrize(("padding", "first"), [(1, 1), (0, 0)], ids=["OpenAI", "ermongroup"])
def test_average_pooling_as_a_convolution(padding: int, first: int) -> None:
    """conv_resample / resamp_with_conv = False, for diffusers' symmetric and right-and-bottom padding."""
    t = Translation({}, "test")
    t.pool("x", 3, first)
    down = Downsample2D(3, use_conv=True, padding=padding, name="op")
    down.conv.load_state_dict({k.removeprefix("x."): v for k, v in t.new.items()})
    assert torch.allclose(down(X), functional.avg_pool2d(X, 2), atol=1e-6)


def test_nearest_enlarging_without_a_convolution() -> None:
    t = Translation({}, "test")
    t.identity("x", 3)
    up = Upsample2D(3, use_conv=True)
    up.conv.load_state_dict({k.removeprefix("x."): v for k, v in t.new.items()})
    assert torch.allclose(up(X), functional.interpolate(X, scale_factor=2.0), atol=1e-6)


@pytest.mark.parametrize("by_head", [True, False])
def test_rows_of_qkv(by_head: bool) -> None:
    """Row names "q0" = q of head 0: legacy order runs head by head, new order kind by kind."""
    heads, width = 2, 3
    kinds, order = ("q", "k", "v"), []
    if by_head:
        order = [(kind, h) for h in range(heads) for kind in kinds]
    else:
        order = [(kind, h) for kind in kinds for h in range(heads)]
    rows = torch.tensor([100.0 * kinds.index(k) + 10 * h + i for k, h in order for i in range(width)])
    t = Translation({"a.weight": rows[:, None, None], "a.bias": rows}, "test")
    t.qkv("b", "a", heads, by_head=by_head)
    for n, name in enumerate(("to_q", "to_k", "to_v")):
        right = [100.0 * n + 10 * h + i for h in range(heads) for i in range(width)]
        assert t.new[f"b.{name}.bias"].tolist() == right
        assert t.new[f"b.{name}.weight"].flatten().tolist() == right


def test_a_time_sinusoid_wider_than_the_first_level() -> None:
    """ADM at 512: the first level has half the model's channels, the sinusoid all of them."""
    config = {
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": [8, 8], "layers_per_block": 1,
        "norm_num_groups": 4, "attention_head_dim": 4, "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2, "time_embedding_dim": 64, "_ddim": {"time_channels": 16},
    }  # fmt: skip
    empty = build.empty_unet(config, "test")
    assert empty.time_embedding.linear_1.weight.shape == (64, 16)
    state = {k: torch.full(v.shape, 0.01) for k, v in empty.state_dict().items()}
    network = build.filled_unet(config, state, "test")
    with torch.no_grad():
        assert network(X[:, :1, :8, :6], torch.tensor([3, 4])).sample.shape == (2, 1, 8, 6)
