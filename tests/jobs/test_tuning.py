"""Tuned times: the closed form against theory, the search against exhaustive search, the files, the command."""

import itertools
import json
import math
import statistics

import numpy as np
import pytest
import torch

from ddim import DDIM, GaussianDenoiser, MixtureDenoiser, Schedule, noise, sample, tau
from ddim.checkpoints import load_tuned, save_tuned
from ddim.denoise import NONE
from ddim.jobs import Tuned, tune
from ddim.jobs.tuning import candidate_times
from ddim.model import Sampler
from ddim.pixels import PixelSpace
from ddim.solve import solver_named
from ddim.uses import best_path, closed_form, moved, spectrum, walk_long

SCHEDULE = Schedule.linear()
MIXTURE = MixtureDenoiser(SCHEDULE, [1, 2], [torch.tensor([-1.0, 0.5]), torch.tensor([0.7, 0.0])], 0.02)


def sampler(solver, steps):
    space, cpu = PixelSpace.of((2,)), torch.device("cpu")
    return Sampler(MIXTURE, MIXTURE, lambda seeds: NONE, solver, tau(SCHEDULE.T, steps), space, cpu, {})


def test_closed_form_is_the_published_optimum_for_one_variance():
    """docs/theory.md, the error of a step: lambda = 0.25, S = 10, found by another dynamic programme."""
    expected = (1000, 481, 342, 254, 192, 145, 107, 75, 47, 21, 0)
    assert closed_form(SCHEDULE, torch.tensor([0.25]), 10) == expected
    angles = [math.atan2(SCHEDULE.at(t).noise, 0.5 * SCHEDULE.at(t).signal) for t in expected]
    steps = [a - b for a, b in itertools.pairwise(angles)]
    assert max(steps) / min(steps) < 1.1  # even angles, but for whole-numbered times


def test_closed_form_shrinks_gaussian_data_least_of_all_times():
    """A short chain and two variances: no other choice of times has a smaller sum of l ln(K_inf/K_S)."""
    schedule, variances = Schedule.cosine(12), torch.tensor([0.1, 2.0], dtype=torch.float64)

    def loss(times):
        x, d = torch.eye(2, dtype=torch.float64), GaussianDenoiser(schedule, 0.0, variances)
        ratio = (sample(d, x, times) / d.flow(x, times[0], 0)).diagonal()
        return float(-(variances * ratio.log()).sum())

    found = closed_form(schedule, variances, 4)
    every = [(12, *sorted(inner, reverse=True), 0) for inner in itertools.combinations(range(1, 12), 3)]
    assert loss(found) == pytest.approx(min(loss(t) for t in every), rel=1e-9)


def test_spectrum_is_numpys_covariance():
    pixels = np.frombuffer(noise([1], (60, 12)).numpy().tobytes(), np.uint8)[: 60 * 12].reshape(60, 2, 3, 2)
    expected = np.linalg.eigvalsh(np.cov(pixels.reshape(60, 12).astype(float) / 127.5, rowvar=False))
    np.testing.assert_allclose(spectrum(pixels), expected, atol=1e-12)
    few = spectrum(pixels[:5])  # fewer images than pixels: the same eigenvalues but for zeros
    exact = np.linalg.eigvalsh(np.cov(pixels[:5].reshape(5, 12).astype(float) / 127.5, rowvar=False))
    np.testing.assert_allclose(few[1:], exact[-4:], atol=1e-12)


def test_the_recorded_walk_lies_on_the_flow():
    oracle = GaussianDenoiser(SCHEDULE, 0.3, 0.25)
    x_T = noise(range(4), (3,), dtype=torch.float64)
    walk = walk_long(oracle, x_T, (1000, 700, 300, 20, 0), 200)
    assert walk.times == (1000, 700, 300, 20, 0)
    for t in walk.times:
        torch.testing.assert_close(walk.states[t], oracle.flow(x_T, 1000, t), rtol=0, atol=2e-3)
    for t in walk.times[:-1]:
        torch.testing.assert_close(walk(torch.zeros(1), t).eps, oracle(walk.states[t], t).eps)
    assert 0 not in walk.predictions


@pytest.mark.parametrize("name", ["ddim", "dpm++2m", "ab3", "unipc"])
def test_dynamic_programming_finds_the_best_of_all_paths(name):
    """Against every path through few times. A solver with a carry could in principle escape the beam; not here."""
    solver, times = solver_named(name), (1000, 800, 600, 450, 300, 200, 100, 40, 10, 0)
    walk = walk_long(MIXTURE, noise(range(16), (2,), dtype=torch.float64), times, 150)
    variance = float((walk.states[0] - walk.states[0].mean(0)).square().mean())

    def cost(path):
        carry, total = solver.init(), 0.0
        for t, s in itertools.pairwise(path):
            step = solver.step(walk, walk.states[t], t, s, carry, None)
            carry = step.carry
            at = SCHEDULE.at(s)
            reach = math.sqrt(variance / (at.alpha_bar * variance + 1 - at.alpha_bar))
            total += reach * float((step.x - walk.states[s]).square().mean().sqrt())
        return total

    every = [(1000, *inner, 0) for inner in itertools.combinations(times[1:-1], 4)]
    found = best_path(walk, solver, 5)
    assert cost(found) == pytest.approx(min(map(cost, every)), rel=1e-9)
    with pytest.raises(ValueError, match="10 steps need 11 times to choose from, got 10"):
        best_path(walk, solver, 10)


def test_moves_keep_the_ends_and_the_order():
    found = list(moved((1000, 400, 399, 0), 0.5))
    assert (1000, 700, 399, 0) in found and (1000, 400, 199, 0) in found
    assert all(t[0] == 1000 and t[-1] == 0 and all(a > b for a, b in itertools.pairwise(t)) for t in found)


@pytest.mark.parametrize(("count", "steps"), [(40, 10), (8, 10), (11, 10), (5, 1), (60, 50)])
def test_candidates(count, steps):
    times = candidate_times(SCHEDULE, max(count, steps + 1), steps)
    assert times[0] == 1000 and times[-1] == 0 and len(times) >= steps + 1
    assert all(a > b for a, b in itertools.pairwise(times))


def test_tuned_times_beat_every_named_spacing_on_latents_not_seen():
    """Of a two-mode mixture: distance to the long trajectory below that of each spacing, seen or not."""
    job = tune(
        sampler(solver_named("dpm++2m"), 6),
        others={"closed form": closed_form(SCHEDULE, torch.tensor([0.6, 0.1]), 6)},
        latents=200, long=150, candidates=30, trials=60, batch_size=100,
    )  # fmt: skip
    *news, result = job
    assert isinstance(result, Tuned) and all(isinstance(n, str) for n in news)
    assert {r.name for r in result.rivals} >= {"uniform", "trailing", "quadratic", "logsnr", "closed form"}
    for rival in result.rivals:
        assert result.chosen.unseen <= rival.unseen
    named = min(r.unseen for r in result.rivals if r.name in ("uniform", "trailing", "quadratic", "logsnr"))
    assert result.chosen.unseen < 0.8 * named
    assert result.chosen.unseen < 2 * result.chosen.seen  # what was found on some latents holds on others
    # the numbers are what they say: each latent's RMS at x_0 from 150 third-order steps, geometric mean
    x_T = noise(range(2_000_000, 2_000_200), (2,))
    reference = walk_long(MIXTURE, x_T, (1000, 0), 150).states[0]
    apart = sample(MIXTURE, x_T, result.chosen.tau, solver=solver_named("dpm++2m")) - reference
    each = apart.double().square().mean(1).sqrt()
    assert statistics.geometric_mean(each.tolist()) == pytest.approx(result.chosen.unseen, rel=1e-3)
    assert float(apart.square().mean().sqrt()) > 1.1 * result.chosen.unseen  # and no mean square


def test_stochastic_solvers_are_refused():
    with pytest.raises(ValueError, match="deterministic"):
        next(tune(sampler(DDIM(0.5), 5), others={}))


def test_files(tmp_path):
    with pytest.raises(ValueError, match=r"no tuned times for solver ddim and 5 steps \(nothing is tuned yet\)"):
        load_tuned(tmp_path, "ddim", 5, "a")
    save_tuned(tmp_path, "ddim", (1000, 500, 0), "a")
    save_tuned(tmp_path, "dpm++2m", tau(1000, 3), "a")
    assert load_tuned(tmp_path, "ddim", 2, "a") == [1000, 500, 0]
    with pytest.raises(ValueError, match="tuned for other weights"):
        load_tuned(tmp_path, "ddim", 2, "b")
    assert json.loads((tmp_path / "tuned.json").read_text()) == {
        "ddim/2": {"tau": [1000, 500, 0], "model": "a"},
        "dpm++2m/3": {"tau": list(tau(1000, 3)), "model": "a"},
    }
    with pytest.raises(
        ValueError, match=r"tuned are ddim/2, dpm\+\+2m/3\): run ddim tune MODEL DATA with `solver` ddim and `steps` 3"
    ):
        load_tuned(tmp_path, "ddim", 3, "a")
    with pytest.raises(ValueError, match="nothing is tuned yet"):
        load_tuned(None, "ddim", 5, "a")
    assert [p.name for p in tmp_path.iterdir()] == ["tuned.json"]
    for damaged in ("[]", '{"ddim/2": [1000, 500, 0]}', '{"ddim/2": {"tau": ["x"], "model": "a"}}'):
        (tmp_path / "tuned.json").write_text(damaged)
        with pytest.raises(ValueError, match=r"tuned\.json"):
            load_tuned(tmp_path, "ddim", 2, "a")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model folder with random weights and a folder of 12 grey 8x8 images."""
    from ddim.checkpoints import save_folder
    from ddim.nets import build
    from ddim.pixels import save_png, to_uint8

    root = tmp_path_factory.mktemp("small")
    meta = {"shape": (1, 8, 8), "num_classes": 3, "null_label": 3}
    network = build("digits", shape=(1, 8, 8), num_classes=3)
    save_folder(root / "model", network, SCHEDULE, prediction="eps", meta=meta)
    (root / "data").mkdir()
    for i, pixels in enumerate(to_uint8(noise(range(12), (1, 8, 8)).clamp(-1, 1))):
        save_png(root / "data" / f"{i}.png", pixels)
    return root


def test_the_command_saves_times_that_spacing_tuned_uses(small, tmp_path, capsys, monkeypatch):
    from dataclasses import replace

    from ddim import Model, load
    from ddim.cli.commands.tune import Command

    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    options = {"latents": 4, "long": 8, "candidates": 6, "trials": 2, "device": "cpu"}
    out = tmp_path / "tau.json"
    Command(str(small / "model"), str(small / "data"), out=out, steps="2,3", solver="ab2", **options).run()
    printed = capsys.readouterr().out
    assert "closed form" in printed and "dynamic programming" in printed and "chosen:" in printed
    document, model = json.loads(out.read_text()), load(small / "model")
    for steps in (2, 3):
        times = model.tau(steps, "tuned", solver="ab2")
        assert list(times) == document["tau"][str(steps)] and times[0] == 1000
        best = min(document["rivals"][str(steps)], key=lambda r: r["unseen"])
        assert best["tau"] == list(times)
    with pytest.raises(ValueError, match="no tuned times for solver ddim and 3 steps"):
        model.tau(3, "tuned", solver="ddim")
    with pytest.raises(ValueError, match="give --out"):
        Command(str(small / "model"), str(small / "data"), save=False).run()
    other = replace(model.checkpoint, prediction="v")  # the same file, read otherwise
    with pytest.raises(ValueError, match="tuned for other weights, or for these read otherwise"):
        Model(other).tau(3, "tuned", solver="ab2")
    before, unet = model.checkpoint.identity, model.checkpoint.network.unet
    unet.register_to_config(attn_norm_num_groups=None)  # at its default: as if this diffusers had just come to have it
    assert model.checkpoint.identity == before
    unet.register_to_config(norm_num_groups=4)  # the same weights in another network
    assert model.checkpoint.identity != before
    assert replace(model.checkpoint, source=str(small / "data" / "0.png")).folder is None  # a file among others
    with pytest.raises(ValueError, match=r"tau\.json exists"):
        Command(str(small / "model"), str(small / "data"), out=out).run()
    with pytest.raises(ValueError, match="deterministic"):
        Command(str(small / "model"), str(small / "data"), steps="2", solver="dpm++2m-sde", **options).run()
