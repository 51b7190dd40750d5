"""`Sampler`: composed once, frozen; equal recipes make equal images, and every way to make images goes through it."""

import json
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from ddim import DDIM, GaussianDenoiser, Heun, NetworkDenoiser, Refused, Sampler, noise, sample, tau
from ddim.denoise import NONE, Conditions
from ddim.pixels import PixelSpace
from ddim.process import edm, flow, ve
from ddim.solve import end_of

SEEDS = [5, 0, 9, 7]
WEIGHTS = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.2, 0.3, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0]])
OPTIONS = [
    {}, {"steps": 7}, {"spacing": "quadratic"}, {"tau": (1000, 500, 20, 0)}, {"eta": 0.5}, {"eta": 1.0, "label": 2},
    {"solver": "heun"}, {"solver": "dpm++2m-sde"}, {"solver": Heun()}, {"solver": DDIM(0.3)}, {"label": [0, 1, 2, 0]},
    {"label": 1, "guidance": 2.5}, {"clip": False}, {"clip": True}, {"precision": "fp64"}, {"label": "cycle"},
]  # fmt: skip


def full(options):
    return options if {"steps", "tau"} & set(options) else {**options, "steps": 3}


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_the_short_way_is_the_sampler(tiny, options):
    short = tiny.sample(seeds=SEEDS, **full(options))
    sampler = tiny.sampler(**full(options))
    assert torch.equal(short, sampler.sample(SEEDS))
    with torch.no_grad():  # with gradients the network's weights are not packed, and round differently
        assert torch.equal(short, sampler.space.decode(end_of(sampler.trajectory(SEEDS))))
    x_T = noise(SEEDS, tiny.shape)
    assert torch.equal(short, sampler.sample(SEEDS, latents=x_T))
    asked_twice = 2 if "guidance" in options else 1
    assert sampler.calls == asked_twice * sampler.solver.calls(sampler.tau)


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_equal_recipes_make_equal_images(tiny, options):
    one, two = (tiny.sampler(**full(options)) for _ in range(2))
    assert one is not two and dict(one.recipe) == dict(two.recipe)
    assert torch.equal(one.sample(SEEDS), two.sample(SEEDS))
    assert json.loads(json.dumps(dict(one.recipe))) == json.loads(json.dumps(dict(two.recipe)))
    if set(full(options)) != {"steps"}:
        assert dict(one.recipe) != dict(tiny.sampler(steps=3).recipe)


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({"steps": 5}, {"steps", "tau"}), ({"tau": (1000, 500, 20, 0)}, {"tau"}), ({"eta": 0.5}, {"eta"}),
        ({"spacing": "trailing"}, {"tau"}), ({"solver": "heun"}, {"solver"}), ({"label": 2}, {"label"}),
        ({"clip": False}, {"clip"}), ({"precision": "bf16"}, {"precision"}), ({"solver": DDIM(0.5)}, {"solver"}),
        ({"label": 1, "guidance": 2.0}, {"label", "guidance"}), ({"label": {5: 1, 0: 2}}, {"label"}),
        ({"label": WEIGHTS}, {"label"}),
    ],
    ids=lambda v: repr(sorted(v)) if isinstance(v, set) else repr(v)[:60],  # a set has no order: workers must agree
)  # fmt: skip
def test_a_recipe_changes_where_what_was_asked_does(tiny, options, keys):
    plain, other = tiny.sampler(steps=3).recipe, tiny.sampler(**{"steps": None if "tau" in options else 3, **options})
    assert {k for k in {*plain, *other.recipe} if plain.get(k) != other.recipe.get(k)} == keys
    json.dumps(dict(other.recipe))


def test_recipes_name_the_weights(tiny, tmp_path):
    from conftest import save_tiny
    from ddim import load

    other = load(save_tiny(tmp_path / "m", seed=1)).sampler(steps=3).recipe
    assert other["weights"] != tiny.sampler(steps=3).recipe["weights"] == tiny.weights_hash


def test_weights_of_one_class_are_that_class(tiny):
    whole = torch.eye(4)[[1, 0, 2, 3]]  # the last one is the null label
    mixed, named = tiny.sampler(steps=3, label=whole), tiny.sampler(steps=3, label=[1, 0, 2, 0])
    torch.testing.assert_close(mixed.sample(SEEDS)[:3], named.sample(SEEDS)[:3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mixed.sample(SEEDS)[3:], tiny.sample(seeds=[7], steps=3), rtol=1e-4, atol=1e-4)


def told(tiny, label, seeds=SEEDS):
    return tiny.sampler(steps=3, label=label).conditions(seeds)


def test_label_rules(tiny):
    assert told(tiny, 2).per_image["label"].tolist() == [2, 2, 2, 2]
    assert told(tiny, [0, 2, 1, 1]).per_image["label"].tolist() == [0, 2, 1, 1]
    assert told(tiny, torch.tensor([0, 2, 1, 1])).per_image["label"].tolist() == [0, 2, 1, 1]
    assert told(tiny, "cycle").per_image["label"].tolist() == [seed % 3 for seed in SEEDS]
    assert told(tiny, {0: 2, 5: 1, 7: 0, 9: 2, 11: 0}).per_image["label"].tolist() == [1, 2, 2, 0]
    assert torch.equal(told(tiny, WEIGHTS).per_image["label"], WEIGHTS)
    assert told(tiny, None) == NONE or not told(tiny, None)
    assert told(tiny, 1).per_image["label"].dtype == torch.int64 and not told(tiny, 1).shared


@pytest.mark.parametrize("label", [1, [1, 0, 2, 1], "cycle", {5: 1, 0: 0, 9: 2, 7: 1}, None], ids=repr)
def test_a_rule_gives_the_labels_it_means(tiny, label):
    """Images are those of the denoiser with its labels written out, one an image."""
    found = tiny.sampler(steps=3, label=label, clip=False).sample(SEEDS)
    written = {"[1, 0, 2, 1]": [1, 0, 2, 1], "1": [1, 1, 1, 1], "'cycle'": [2, 0, 0, 1], "None": [3] * 4}
    classes = torch.tensor(written.get(repr(label), [1, 0, 2, 1]))
    network = tiny.network()
    by_hand = NetworkDenoiser(lambda x, t: network(x, t, classes), tiny.schedule)
    torch.testing.assert_close(found, sample(by_hand, noise(SEEDS, tiny.shape), tau(1000, 3)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("label", "says"),
    [
        (3, r"label 3 is outside 0\.\.2"), (-1, "label -1 is outside"), (1.5, "whole numbers, got 1.5"),
        ([0, 1], "4 images need 1 label or 4, got 2"), ([0, 1, 2, 3], "label 3 is outside"),
    ],
)  # fmt: skip
def test_impossible_labels(tiny, label, says):
    with pytest.raises(Refused, match=says):
        tiny.sampler(steps=3, label=label).sample(SEEDS)


def test_one_label_that_cannot_be_is_refused_when_composed(tiny):
    for label in (3, 1.5):
        with pytest.raises(Refused):
            tiny.sampler(label=label)
    with pytest.raises(Refused, match="needs a label"):
        tiny.sampler(guidance=2.0)
    with pytest.raises(Refused, match="give it there"):
        tiny.sampler(solver=DDIM(), eta=0.5)


@pytest.mark.parametrize("label", [2, [0, 1, 2, 0], "cycle", WEIGHTS], ids=["one", "each", "cycle", "weights"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_batches_do_not_change_what_is_an_images_own(tiny, label, eta):
    """Noise is the same bit for bit, labels go with their image; rounding of another batch size is the network's."""
    sampler = tiny.sampler(steps=3, label=label, eta=eta)
    together = sampler.sample(SEEDS)
    for size in (1, 2, 3):
        torch.testing.assert_close(sampler.sample(SEEDS, batch_size=size), together, rtol=1e-4, atol=1e-4)
    assert torch.equal(sampler.start(SEEDS)[2:3], sampler.start([9]))
    with pytest.raises(Refused, match="`batch_size` must be at least 1, got 0"):
        sampler.sample(SEEDS, batch_size=0)


def test_one_latent_and_one_condition_a_seed_whatever_the_batches(tiny):
    """They used to be cut off where the batches ended with the seeds."""
    for size in (1, 2, 64):
        with pytest.raises(Refused, match="3 latents, but 2 seeds"):
            tiny.sampler(steps=2).sample([0, 1], latents=noise([0, 1, 2], tiny.shape), batch_size=size)
        with pytest.raises(Refused, match="'label' has 4 rows for 2 images"):
            tiny.sampler(steps=2, label=WEIGHTS).sample([0, 1], batch_size=size)


def test_an_eta_an_image_is_cut_with_its_batch_and_rehearsed(tiny):
    sampler = tiny.sampler(steps=3, solver=DDIM([0.0, 0.5, 1.0, 0.2]))
    sampler.rehearse()
    torch.testing.assert_close(sampler.sample(SEEDS, batch_size=3), sampler.sample(SEEDS), rtol=1e-4, atol=1e-4)
    with pytest.raises(Refused, match="largest std"):
        tiny.sampler(steps=3, solver=DDIM(9.0)).rehearse()


def test_it_is_frozen(tiny):
    sampler = tiny.sampler(steps=3)
    for name in ("tau", "solver", "denoise", "recipe", "space"):
        with pytest.raises(FrozenInstanceError):
            setattr(sampler, name, None)
    assert "3 steps" in repr(sampler)


@pytest.mark.parametrize("options", [{}, {"label": 1, "guidance": 2.0}, {"label": [0, 1, 2, 0]}, {"label": "cycle"}])
def test_decode_of_encode(tiny, options):
    sampler = tiny.sampler(steps=6, clip=True, **options)
    x = tiny.sampler(steps=6, clip=False, **options).sample(SEEDS)
    z = sampler.encode(x, seeds=SEEDS)
    torch.testing.assert_close(sampler.decode(z, seeds=SEEDS), x, rtol=0, atol=1e-3)
    assert z.recipe.tau == sampler.tau and float(z.certificate.psnr.min()) > 60
    short = tiny.encode(x, steps=6, **{**options, "label": [s % 3 for s in SEEDS]} if "label" in options else {})
    if options.get("label") == "cycle":
        assert torch.equal(short.x_T, z.x_T)


def oracle_sampler(process, times, solver, shape=(1, 4, 4), data_range=(-1.0, 1.0)):
    oracle = GaussianDenoiser(process, 0.3, 0.04)
    space = PixelSpace.of(shape, data_range)
    told = lambda seeds: Conditions()  # noqa: E731
    return Sampler(oracle, oracle, told, solver, times, space, torch.device("cpu"), {"process": process.name})


@pytest.mark.parametrize("process", [edm(), ve(), flow()], ids=lambda p: p.name)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_on_a_continuous_process_it_starts_from_the_noise_there_is(process, eta):
    times = tau(process, 60, "logsnr")
    sampler = oracle_sampler(process, times, DDIM(eta))
    start = process.at(times[0]).noise * noise(SEEDS, (1, 4, 4))
    assert torch.equal(sampler.start(SEEDS), start)
    expected = sample(sampler.denoise, start, times, solver=DDIM(eta), seeds=SEEDS)
    assert torch.equal(sampler.sample(SEEDS), expected)
    assert torch.equal(sampler.sample(SEEDS, latents=start), expected)  # latents are x at tau[0] themselves
    many = sampler.sample(range(300))
    assert float(many.mean()) == pytest.approx(0.3, abs=0.02) and float(many.std()) == pytest.approx(0.2, abs=0.03)
    x = sampler.sample(SEEDS).double()
    if not eta:
        torch.testing.assert_close(sampler.decode(sampler.encode(x)), x, rtol=0, atol=1e-6)


def test_the_space_stands_between_states_and_pictures():
    plain = oracle_sampler(edm(), tau(edm(), 8, "edm"), DDIM())
    other = replace(plain, space=PixelSpace.of((1, 4, 4), (0.0, 1.0)))  # the same states, of another range
    torch.testing.assert_close(other.sample(SEEDS), 2 * plain.sample(SEEDS) - 1)
    x = plain.sample(SEEDS).double()
    torch.testing.assert_close(other.encode(2 * x - 1).x_T, plain.encode(x).x_T, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(other.decode(other.encode(2 * x - 1)), 2 * x - 1, rtol=0, atol=1e-6)
