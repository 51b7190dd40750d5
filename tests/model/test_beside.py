"""Guides and early networks by `Model.sampler`: composed as the wrappers, recorded, refused where they do not fit."""

import json
import re
from dataclasses import replace

import pytest
import torch

from conftest import save_tiny
from ddim import Refused, Schedule, load, noise
from ddim.model import Model
from ddim.solve import end_of, trajectory

SEEDS = [3, 8]
HOW = {"steps": 5, "label": "cycle"}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """Another network of the same run, as it were: other weights, and it predicts v."""
    return load(save_tiny(tmp_path_factory.mktemp("bad") / "model", seed=5, prediction="v"))


@pytest.fixture
def kept(tmp_path):
    """A model folder of one's own, to keep things in."""
    return load(save_tiny(tmp_path / "model"))


def pairs(sampler, t):
    """What a sampler's denoiser says at t of the same points."""
    return sampler.bound(SEEDS)(noise(SEEDS, (1, 8, 8)), t)


@torch.no_grad()
def test_a_guide_is_the_extrapolation_from_it_within_the_interval(tiny, bad):
    guided = tiny.sampler(**HOW, guide=bad, guidance=2.5, interval=(100, 700), clip=False)
    plain, worse = tiny.sampler(**HOW, clip=False), bad.sampler(**HOW, clip=False)
    for t, weight in ((1000, 1.0), (700, 2.5), (100, 2.5), (99, 1.0)):
        p, a, b = pairs(guided, t), pairs(plain, t), pairs(worse, t)
        torch.testing.assert_close(p.x0, b.x0 + weight * (a.x0 - b.x0), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(p.eps, b.eps + weight * (a.eps - b.eps), rtol=1e-4, atol=1e-4)
    inside = sum(100 <= t <= 700 for t in guided.tau[:-1])
    assert guided.calls == 5 + inside and 0 < inside < 5
    heard = []
    guided.sample(SEEDS, progress=lambda done, whole: heard.append((done, whole)))
    assert heard[-1] == (2 * guided.calls, 2 * guided.calls)


def test_without_labels_and_at_weight_one_and_by_itself(tiny, bad):
    assert not torch.equal(tiny.sample(2, steps=3, guide=bad, guidance=2.0), tiny.sample(2, steps=3))
    assert torch.equal(tiny.sample(2, steps=3, guide=bad, guidance=1.0), tiny.sample(2, steps=3))
    same = load(tiny.checkpoint.source)
    torch.testing.assert_close(tiny.sample(2, steps=3, guide=same, guidance=3.0), tiny.sample(2, steps=3))
    assert dict(tiny.sampler(steps=3, guide=bad, guidance=1.0).recipe) == dict(tiny.sampler(steps=3).recipe)
    assert tiny.sampler(steps=3, guide=bad, guidance=1.0).calls == 3


def test_labels_guide_within_an_interval_too(tiny):
    how = {"steps": 4, "label": 1, "guidance": 3.0}
    assert torch.equal(tiny.sample(2, **how, interval=(0, 1000)), tiny.sample(2, **how))
    assert torch.equal(tiny.sample(2, **how, interval=(2, 2)), tiny.sample(2, steps=4, label=1))
    assert tiny.sampler(**how, interval=(600, 1000)).calls == 4 + 2  # of 1000, 667, 334, 1


@torch.no_grad()
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpm++2m"])
def test_an_early_network_serves_the_noisy_steps(tiny, bad, solver):
    both = tiny.sampler(**HOW, early=bad, at=500, solver=solver)
    for t, one in ((501, bad), (1000, bad), (500, tiny), (1, tiny)):
        assert torch.equal(pairs(both, t).x0, pairs(one.sampler(**HOW, solver=solver), t).x0)  # each with its own clip
    assert both.calls == both.solver.calls(both.tau)
    if solver == "ddim":
        first = end_of(trajectory(bad.sampler(**HOW).bound(SEEDS), both.solver, both.tau[:4], both.start(SEEDS)))
        last = end_of(trajectory(tiny.sampler(**HOW).bound(SEEDS), both.solver, both.tau[3:], first))
        assert both.tau[2] > 500 >= both.tau[3]
        torch.testing.assert_close(both.sample(SEEDS), last)


def test_both_at_once_and_through_latents(tiny, bad):
    sampler = tiny.sampler(steps=4, label=0, early=bad, at=600, guide=bad, guidance=1.5)
    assert sampler.calls == 8
    x = noise(SEEDS, (1, 8, 8), dtype=torch.float64).clamp(-1, 1)
    z = sampler.encode(x)
    torch.testing.assert_close(sampler.decode(z), x, rtol=0, atol=1e-4)
    assert set(z.recipe.conditions) >= {"guide", "early", "label"}
    with pytest.warns(UserWarning, match="early"):
        tiny.sampler(steps=4, label=0, guide=bad, guidance=1.5).decode(z)


def test_the_recipe_tells_who_guides_and_who_hands_over(tiny, bad, kept):
    ways = [
        {"guidance": 2.0}, {"guidance": 2.0, "interval": (0, 500)}, {"guidance": 2.0, "guide": bad},
        {"guidance": 2.0, "guide": kept}, {"guidance": 2.5, "guide": bad}, {"early": bad, "at": 500},
        {"early": bad, "at": 501}, {"early": kept, "at": 500}, {"early": bad, "at": 500, "guidance": 2.0},
        {"guidance": 2.0, "guide": bad, "interval": (1, 500)},
    ]  # fmt: skip
    kept.checkpoint = replace(kept.checkpoint, sha256="another")
    recipes = [json.dumps(dict(tiny.sampler(**HOW, **way).recipe)) for way in [{}, *ways]]
    assert len(set(recipes)) == len(recipes)
    told = json.loads(recipes[-1])
    assert told["guide"] == bad.checkpoint.identity and told["interval"] == [1, 500] and told["guidance"] == 2.0
    assert "guide" not in json.loads(recipes[0]) and "interval" not in json.loads(recipes[0])


@torch.no_grad()
def test_a_guide_that_is_trained_on_is_another_one_in_recipe_and_images(tiny, kept):
    how = {"steps": 3, "label": 1, "guide": kept, "guidance": 2.0}
    before, recipe = tiny.sample(2, **how), tiny.sampler(**how).recipe["guide"]
    for parameter in kept.checkpoint.network.parameters():
        parameter.mul_(0.9)
    assert not torch.equal(tiny.sample(2, **how), before) and tiny.sampler(**how).recipe["guide"] != recipe


def test_tuned_guidance_and_hand_over_are_looked_up(kept, bad):
    with pytest.raises(Refused, match=r"no tuned guidance for solver ddim and 5 steps \(nothing is tuned yet\)"):
        kept.sampler(**HOW, guidance="tuned")
    kept.save_tau(kept.tau(5), "ddim")
    kept.save_guidance(1.75, (200, 600), solver="ddim", steps=5)
    kept.save_guidance(2.25, None, solver="ddim", steps=5, guide=bad)
    kept.save_handover(640, bad, solver="ddim", steps=5)
    assert kept.sampler(**HOW, guidance="tuned").recipe["interval"] == [200, 600]
    assert kept.sampler(**HOW, guidance="tuned").recipe["guidance"] == 1.75
    assert kept.sampler(**HOW, guidance="tuned", guide=bad).recipe["guidance"] == 2.25
    assert kept.sampler(**HOW, early=bad).recipe["at"] == 640
    assert kept.tau(5, "tuned") == kept.tau(5)
    with pytest.raises(Refused, match=r"no tuned guidance by this guide .*tuned are ddim/5, early/ddim/5/\w+, gui"):
        kept.sampler(**HOW, guidance="tuned", guide=kept)
    with pytest.raises(Refused, match=r"give `at`, or run ddim tune MODEL DATA with the same `early`"):
        kept.sampler(steps=6, label=1, early=bad)
    with pytest.raises(Refused, match="brings its own `interval`"):
        kept.sampler(**HOW, guidance="tuned", interval=(1, 2))
    other = Model(replace(kept.checkpoint, prediction="v"))
    with pytest.raises(Refused, match="tuned for other weights, or for these read otherwise"):
        other.sampler(**HOW, guidance="tuned")
    path = kept.folder / "tuned.json"
    for damaged in ({"guidance/ddim/5": {"model": "a"}}, {"early/ddim/5/x": {"at": "6", "model": "a"}},
                    {"guidance/ddim/5": {"guidance": 2.0, "interval": [5], "model": "a"}}):  # fmt: skip
        path.write_text(json.dumps(damaged))
        with pytest.raises(Refused, match="not as `ddim tune` writes it"):
            kept.sampler(**HOW, guidance="tuned")
    memory = Model(replace(kept.checkpoint, source="nowhere"))
    with pytest.raises(Refused, match="no model folder to keep guidance in"):
        memory.save_guidance(2.0, None, solver="ddim", steps=5)


@pytest.mark.parametrize("role", [{"guide": "guide", "guidance": 2.0}, {"early": "early", "at": 500}])
def test_models_that_do_not_fit_are_refused(tiny, tmp_path, role):
    name = "guide" if "guide" in role else "early"
    for i, (more, words) in enumerate(
        [
            ({"schedule": Schedule.linear(100)}, r"another process: .*T = 1000.*T = 100 .*an early checkpoint"),
            ({"schedule": Schedule.cosine(1000)}, r"another process: .*alpha_bar\[500\] = 0\.078.*= 0\.49"),
            ({"shape": (1, 16, 16)}, r"another image shape: .*\(1, 8, 8\).*\(1, 16, 16\); take"),
            ({"num_classes": 4}, r"another number of classes: .*3, that of .*4; take"),
            ({"data_range": [0.0, 1.0]}, r"another data range"),
        ]
    ):
        other = load(save_tiny(tmp_path / f"{i}", **more))
        with pytest.raises(Refused, match=rf"`{name}` has {words}") as refused:
            tiny.sampler(**HOW, **{**role, name: other})
        assert "\n" not in str(refused.value)
    with pytest.raises(Refused, match=f"`{name}` is a model, as ddim.load gives it; got a str"):
        tiny.sampler(**HOW, **{**role, name: "run"})
    closed = Model(replace(tiny.checkpoint, null_label=None))
    with pytest.raises(Refused, match=f"`{name}` knows only classes 0..2: give a `label`"):
        tiny.sampler(steps=3, **{**role, name: closed})


def test_other_mistakes_are_named(tiny, bad):
    for how, words in [
        ({"interval": (1, 500)}, "says where guidance acts: give `guidance`"),
        ({"guidance": 2.0, "interval": (1, 1001)}, r"two whole times in 0..1000; got \(1, 1001\)"),
        ({"guidance": 2.0, "interval": (1, 2, 3)}, "two whole times"),
        ({"guidance": 2.0, "interval": (500, 1)}, "empty"),
        ({"guidance": "much"}, "`guidance` is a number, or \"tuned\"; got 'much'"),
        ({"guide": bad, "guidance": [1.0, 2.0]}, "one number for all images"),
        ({"guide": bad, "guidance": float("inf")}, "must be finite"),
        ({"guide": bad, "guidance": 2.0, "null": {"label": 3}}, "give one of them"),
        ({"at": 500}, "hands over from another network: name it, `early`"),
        ({"early": bad, "at": 0}, r"`at` = 0 lies outside 1..1000"),
        ({"early": bad, "at": 1001}, r"`at` = 1001 lies outside 1..1000"),
        ({"early": bad, "at": 0.5}, "whole"),
    ]:
        with pytest.raises(Refused, match=words if "\\" in words or ".." in words else re.escape(words)):
            tiny.sampler(**HOW, **how)
    with pytest.raises(Refused, match="or a `guide`, another model"):
        tiny.sampler(steps=3, guidance=2.0)
