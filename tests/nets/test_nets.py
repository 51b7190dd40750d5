import pytest
import torch

from ddim import noise
from ddim.nets import PRESETS, DiffusersNetwork, build, torch_randomness
from ddim.refused import Refused


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_cifar10_is_the_network_of_ho_et_al():
    """35,746,307 parameters: the count of google/ddpm-cifar10-32 (the paper, appendix B, says 35.7 million)."""
    with torch.device("meta"):
        unet = build("cifar10", shape=(3, 32, 32))
    assert parameters(unet) == 35_746_307
    norms = [m for m in unet.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {m.eps for m in norms} == {1e-6} and {m.num_groups for m in norms} == {32}
    assert {m.p for m in unet.modules() if isinstance(m, torch.nn.Dropout) and m.p} == {0.1}
    attention = [b.attentions is not None for b in unet.down_blocks if hasattr(b, "attentions")]
    assert [hasattr(b, "attentions") for b in unet.down_blocks] == [False, True, False, False] and attention
    assert {a.heads for b in (*unet.down_blocks, unet.mid_block) for a in getattr(b, "attentions", [])} == {1}


@pytest.mark.parametrize(("preset", "shape"), [("mnist", (1, 28, 28)), ("mnist", (1, 32, 32)), ("digits", (1, 8, 8))])
def test_small_presets_answer_in_the_shape_of_the_image(preset, shape):
    network = DiffusersNetwork(build(preset, shape=shape))
    x = noise([0, 1], shape)
    assert network(x, torch.tensor([0, 999])).shape == x.shape


def test_the_bundled_preset_fits_the_package():
    """At most 8 MB as 2-byte weights (issue 2)."""
    with torch.device("meta"):
        assert 2 * parameters(build("mnist", shape=(1, 28, 28), num_classes=10)) < 8e6


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_can_be_built_at_the_size_it_is_for(preset):
    side = {"digits": 8, "mnist": 28, "grey32": 32, "64": 64, "128": 128}.get(preset, 32)
    with torch.device("meta"):
        unet = build(preset, shape=(3, side, side), num_classes=4)
    assert unet.config.num_class_embeds == 5 and parameters(unet) > 1e5


def test_height_and_width_may_differ():
    unet = build("digits", shape=(3, 8, 12))
    x = noise([0], (3, 8, 12))
    assert unet.config.sample_size == (8, 12)
    assert DiffusersNetwork(unet)(x, torch.tensor([3])).shape == (1, 3, 8, 12)


def test_sizes_that_cannot_be_halved_are_refused_with_the_numbers_and_a_size_that_can():
    with pytest.raises(Refused, match=r"multiples of 4, got 30x28; give `size` (28|32)x28"):
        build("mnist", shape=(1, 30, 28))
    with pytest.raises(Refused, match=r"unknown preset 'huge'.*cifar10"):
        build("huge", shape=(1, 28, 28))
    with pytest.raises(Refused, match="at least 1 class, got 0"):
        build("mnist", shape=(1, 28, 28), num_classes=0)


def test_no_label_means_the_null_label_and_labels_matter():
    network = DiffusersNetwork(build("digits", shape=(1, 8, 8), num_classes=3), null_label=3).eval()
    x, t = noise([0, 1], (1, 8, 8)), torch.tensor([5, 700])
    null = network(x, t, torch.tensor([3, 3]))
    assert torch.equal(network(x, t), null)
    assert not torch.equal(network(x, t, torch.tensor([0, 0])), null)


def test_initial_weights_are_a_function_of_the_seed_and_leave_global_randomness_alone():
    before = torch.get_rng_state()
    a, b, c = (build("digits", shape=(1, 8, 8), seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[k], b[k]) for k in a) and any(not torch.equal(a[k], c[k]) for k in a)


def test_dropout_inside_torch_randomness_repeats():
    def draw(seed, step):
        with torch_randomness(seed, "dropout", step):
            return torch.nn.functional.dropout(torch.ones(64))

    assert torch.equal(draw(1, 5), draw(1, 5))
    assert not torch.equal(draw(1, 5), draw(1, 6)) and not torch.equal(draw(1, 5), draw(2, 5))
