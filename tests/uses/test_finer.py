"""Latents that are one state from the law: finer times where those asked for fail, noise where images have none."""

import json
import math
import warnings
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from rough_network import images, network
from safetensors import safe_open
from safetensors.torch import save_file

import ddim
from ddim.process import edm, flow, vp
from ddim.uses import Latents, Road, decode, encode, law
from ddim.uses.finer import roads_of

SCHEDULE = ddim.Schedule.linear(1000)
SEEDS = range(40, 48)
CORNERS = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 2)


def angle(process, t):
    return math.atan2(process.at(t).noise, process.at(t).signal)


def narrow(variance=1e-4):
    """Data as exact as grey levels: four points in the plane, barely blurred."""
    return ddim.MixtureDenoiser(SCHEDULE, [0.25] * 4, list(CORNERS), [variance] * 4)


@pytest.mark.parametrize("process", [flow(), vp(), edm(), SCHEDULE, SCHEDULE.zero_terminal_snr()], ids=lambda p: p.name)
def test_finer_times_are_even_in_a_root_of_the_angle(process):
    asked, *finer = roads_of(process, tau := ddim.tau(process, 200), None)
    assert asked == Road(tau) and len(finer) == 2
    for power, road in zip((2, 4), finer, strict=True):
        assert len(road.tau) == 201 and road.tau[0] == process.T and road.tau[-1] == road.start == process.first
        steps = [angle(process, t) ** (1 / power) - angle(process, s) ** (1 / power) for t, s in pairwise(road.tau)]
        if process.discrete:
            assert all(t > s for t, s in pairwise(road.tau)) and all(type(t) is int for t in road.tau)
        else:
            assert steps == pytest.approx([steps[0]] * 200, rel=1e-6)


SUDDEN = ddim.Schedule([1.0, *(1 - 0.001 * t for t in range(1, 19)), 0.5, 0.01])  # whose angle grows at the very end


@pytest.mark.parametrize("schedule", [ddim.Schedule.linear(20, beta_start=0.005, beta_end=0.5), SUDDEN], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 10, 18, 19])
def test_whole_times_stay_apart_however_few_there_are(steps, schedule):
    _, *finer = roads_of(schedule, ddim.tau(20, steps), None)
    assert finer
    for road in finer:
        assert len(road.tau) == steps + 1 and (road.tau[0], road.tau[-1]) == (20, 1)
        assert all(t > s for t, s in pairwise(road.tau))
    assert roads_of(schedule, ddim.tau(20, 20), None)[1:] == (Road(tuple(range(20, 0, -1)), 1),)  # all there are
    assert len(roads_of(schedule, ddim.tau(20, 20), 1)) == 1


def test_roads_begin_where_images_are():
    tau = (1000, 600, 200, 50, 0)
    assert [(r.tau[-1], r.start) for r in roads_of(SCHEDULE, tau, None)] == [(0, None), (1, 1), (1, 1)]
    assert roads_of(SCHEDULE, tau, 50)[0] == Road((1000, 600, 200, 50), 50)
    assert roads_of(SCHEDULE, tau, 40)[0] == Road((1000, 600, 200, 50, 40), 40)
    assert {(r.tau[-1], r.start) for r in roads_of(SCHEDULE, tau, 40)} == {(40, 40)}
    assert {(r.tau[-1], r.start) for r in roads_of(SCHEDULE, (1000, 600, 50), None)} == {(50, None)}  # states at 50


@pytest.mark.parametrize("start", [0, 1000, -3, 1.5, math.nan])
def test_a_start_outside_is_refused(start):
    with pytest.raises(ddim.Refused, match=r"start|whole numbers|outside"):
        encode(narrow(), CORNERS, (1000, 500, 0), start=start)
    with pytest.raises(ddim.Refused, match=r"`start` must lie from 0\.001 to below 1\.0, got 0\.0"):
        encode(ddim.GaussianDenoiser(flow(), 0.0, 1.0), CORNERS, ddim.tau(flow(), 5), start=0.0)


def test_a_start_noises_and_takes_the_noise_off_again():
    """Gaussian data: the latent is the noised image through the product of DDIM's gains (docs/theory.md)."""
    tau, start, variance, mean = (1000, 600, 200, 50, 0), 50, 0.25, 0.3
    oracle = ddim.GaussianDenoiser(SCHEDULE, mean, variance)
    x = ddim.noise(SEEDS, (5,), dtype=torch.float64) * 0.5 + mean
    z = encode(oracle, x, tau, start=start, seeds=SEEDS)
    at = SCHEDULE.at(start)
    state = at.signal * (x - mean) + at.noise * ddim.noise(SEEDS, (5,), purpose="start", dtype=torch.float64)
    for t, s in pairwise((1000, 600, 200, 50)):
        at_t, at_s = SCHEDULE.at(t), SCHEDULE.at(s)
        c = at_t.signal**2 * variance + at_t.noise**2
        state = state * c / (at_t.signal * at_s.signal * variance + at_t.noise * at_s.noise)
    torch.testing.assert_close(z.x_T, state + SCHEDULE.at(1000).signal * mean, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(decode(oracle, z), x, rtol=0, atol=1e-8)
    assert z.recipe.roads[0] == Road((1000, 600, 200, 50), 50) and z.seeds == tuple(SEEDS)
    again = encode(oracle, x[2:4], tau, start=start, seeds=SEEDS[2:4])  # an image depends on its own seed alone
    torch.testing.assert_close(again.x_T, z.x_T[2:4], rtol=0, atol=1e-8)


def test_exact_values_have_no_law_until_they_are_noised():
    x, tau = CORNERS[torch.arange(200) % 4].repeat(1, 4), ddim.tau(1000, 20)
    corners = CORNERS.repeat(1, 4)
    oracle = ddim.MixtureDenoiser(SCHEDULE, [0.25] * 4, list(corners), [1e-5] * 4)
    assert law(encode(oracle, x, tau).x_T).variance < 0.3
    assert law(encode(oracle, x, tau, start=1).x_T).variance == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("method", "strength"), [("implicit", 0.5), ("bdia", 1.0), ("exact", 6.0)])
def test_every_method_takes_a_start(method, strength):
    z = encode(network(strength), images(), ddim.tau(1000, 20), method, start=5)
    assert float(z.certificate.psnr.min()) > 60
    torch.testing.assert_close(decode(network(strength), z), images(), rtol=0, atol=2e-3)


def test_images_the_asked_times_cannot_solve_are_one_state_on_finer_ones(tmp_path):
    tau = ddim.tau(1000, 6)
    x = torch.cat([CORNERS[[0, 1, 3]], torch.zeros(1, 2, dtype=torch.float64)])  # the middle can be solved as asked
    z = encode(narrow(), x, tau, seeds=range(4))
    assert z.certificate.road.tolist() == [1, 1, 1, 0] and not z.unsolved and not bool(z.coupled.any())
    assert "one state on the times asked for 1, one state on finer times 3" in str(z.certificate)
    assert len(z.recipe.roads[1].tau) == len(tau)  # as many calls down
    z.save(tmp_path / "z.safetensors")
    joined = Latents.join([encode(narrow(), x[:2], tau, seeds=[0, 1]), encode(narrow(), x[2:], tau, seeds=[2, 3])])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (z, Latents.load(tmp_path / "z.safetensors"), joined):
            torch.testing.assert_close(decode(narrow(), same), x, rtol=0, atol=1e-8)
        torch.testing.assert_close(decode(narrow(), z.part(1, 4)), x[1:], rtol=0, atol=1e-8)
    alone = encode(narrow(), x[:2], tau, "implicit")
    assert alone.unsolved == (0, 1) and len(alone.recipe.roads) == 1


def changed(path, tensors=None, recipe=None, without=()):
    """The file with other tensors and another recipe."""
    with safe_open(path, "pt") as f:
        told = {**json.loads(f.metadata()["recipe"]), **(recipe or {})}
        kept = {name: f.get_tensor(name) for name in f.keys()} | (tensors or {})  # noqa: SIM118 -- no mapping
    for name in without:
        told.pop(name, None), kept.pop(name, None)
    save_file(kept, path, {"ddim_latents": "1", "recipe": json.dumps(told)})
    return path


def test_files_from_before_there_were_roads_are_read(tmp_path):
    z = encode(network(6.0), images(), ddim.tau(1000, 20), "bdia")
    z.save(tmp_path / "z.safetensors")
    back = Latents.load(changed(tmp_path / "z.safetensors", without=("road", "roads", "seeds")))
    torch.testing.assert_close(decode(network(6.0), back), images(), rtol=0, atol=2e-3)
    assert back.certificate.road.tolist() == [-1] * 5


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"tensors": {"road": torch.tensor([7, 1, 1, 1])}}, "road names none of its 3 roads"),
        ({"tensors": {"road": torch.tensor([-1, 1, 1, 1])}}, "does not fit the coupled images"),
        ({"recipe": {"roads": [{"tau": [6, 3], "start": 2}]}}, "roads must be"),
        ({"recipe": {"roads": []}}, "roads must be"),
        ({"recipe": {"seeds": [1, 2]}}, "seeds for 2"),
        ({"recipe": {"seeds": [-1, 0, 1, 2]}}, "seeds must be"),
        ({"without": ("seeds",)}, "seeds are missing"),
    ],
)
def test_files_whose_roads_make_no_sense_are_refused(tmp_path, how, says):
    encode(narrow(), CORNERS, ddim.tau(1000, 6)).save(tmp_path / "z.safetensors")
    with pytest.raises(ddim.Refused, match=says):
        Latents.load(changed(tmp_path / "z.safetensors", **how))


def test_another_recipe_makes_new_images_from_x_T_alone():
    z = encode(narrow(), CORNERS, ddim.tau(1000, 6))
    with pytest.warns(UserWarning, match="12 steps"):
        y = decode(narrow(), z, ddim.tau(1000, 12))
    torch.testing.assert_close(y, ddim.sample(narrow(), z.x_T, ddim.tau(1000, 12)))
    x_T = z.x_T.clone()
    decode(narrow(), replace(z))
    assert torch.equal(z.x_T, x_T)
