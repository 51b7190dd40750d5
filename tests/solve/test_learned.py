"""Learned variances: the formula against the paper's, samples against OpenAI's programs, steps against diffusers."""

import itertools
import json
from math import exp, log, sqrt
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import ddim
from ddim.checkpoints import Checkpoint, export_checkpoint, load_folder, open_checkpoint
from ddim.denoise import Bound, Clip, Conditions, DynamicThreshold, Guided, NetworkDenoiser, labels
from ddim.process import learned_std

GOLDEN = Path(__file__).parents[1] / "data/golden"
IMPROVED, ADM = "improved-diffusion/learn-sigma-cosine", "guided-diffusion/adm-legacy-attention"
LEARNED = ddim.DDIM(sigma="learned")
SCHEDULE = ddim.Schedule.linear(1000)


def opened(case: str) -> Checkpoint:
    told = json.loads((GOLDEN / case / "case.json").read_text())
    keep = ("model_kwargs", "diffusion_kwargs", "image_size")
    return open_checkpoint(GOLDEN / case / "ema_0.9999_000100.pt", config={k: told[k] for k in keep})


@pytest.fixture(scope="module")
def checkpoints() -> dict[str, Checkpoint]:
    return {case: opened(case) for case in (IMPROVED, ADM)}


def network(x, t):
    """eps and fractions that depend on x and t, so that no mistake cancels."""
    return torch.cat([0.5 * x.roll(1, -1), torch.sin(3 * x + t.view(-1, *[1] * (x.ndim - 1)))], 1)


def denoiser(kind="learned_range", said=network):
    return NetworkDenoiser(said, SCHEDULE, learned_variance=kind)


@pytest.mark.parametrize(("t", "s"), [(1000, 999), (700, 350), (2, 1)])
def test_log_variance_is_between_those_of_the_step(t, s):
    """Eq. 15 with beta = 1 - a_t/a_s and beta_tilde = (1 - a_s)/(1 - a_t) beta of the two ends (section 4)."""
    a_t, a_s = float(SCHEDULE.alpha_bar[t]), float(SCHEDULE.alpha_bar[s])
    beta = 1 - a_t / a_s
    small = (1 - a_s) / (1 - a_t) * beta
    for said in (-1.0, -0.3, 0.0, 1.0, 1.5):
        f = (said + 1) / 2
        right = sqrt(exp(f * log(beta) + (1 - f) * log(small)))
        found = learned_std(torch.tensor([said], dtype=torch.float64), "learned_range", SCHEDULE.at(t), SCHEDULE.at(s))
        assert float(found) == pytest.approx(right, rel=1e-9)


@pytest.mark.parametrize("case", [IMPROVED, ADM])
def test_log_variances_are_the_peers(case, checkpoints):
    k, e = checkpoints[case], load_file(GOLDEN / case / "expected.safetensors")
    for i, t in enumerate((e["eval.t"] + 1).tolist()):
        if t == 1:
            continue  # the last step has no noise; they write the variance of the step before it there
        conditions = labels(e["eval.y"][i : i + 1]) if "eval.y" in e else Conditions()
        with torch.no_grad():
            p = k.denoiser()(e["eval.x"][i : i + 1], t, conditions)
        std = learned_std(p.variance, k.variance, k.schedule.at(t), k.schedule.at(t - 1))
        torch.testing.assert_close(2 * std.log(), e["eval.log_variance"][i : i + 1], atol=2e-4, rtol=1e-5)


def peers_samples():
    with safe_open(GOLDEN / "learned_variance.safetensors", "pt") as file:
        times = json.loads(file.metadata()["times"])
    return [(name.rpartition("/")[0], name, own) for name, own in times.items()]


@pytest.mark.parametrize(("case", "name", "visited"), peers_samples())
def test_ancestral_samples_are_the_peers(case, name, visited, checkpoints):
    """p_sample_loop of improved-diffusion and of guided-diffusion, on even and on uneven sub-sequences of times."""
    k, e = checkpoints[case], load_file(GOLDEN / case / "expected.safetensors")
    right = load_file(GOLDEN / "learned_variance.safetensors")
    tau = (*(t + 1 for t in reversed(visited)), 0)
    denoise = k.denoiser() if name.endswith("noclip") else Clip(k.denoiser())
    denoise = Bound(denoise, labels(e["sample.y"])) if "sample.y" in e else denoise
    drawn = dict(zip(tau, right["noise"], strict=False))
    with torch.no_grad():
        xs = [step.x for step in ddim.trajectory(denoise, LEARNED, tau, e["x_T"], drawn.get)]
    for at, x in ((f"{name}.x_0", xs[-1]), (f"{name}.x_4", xs[3])):
        if at in right:
            assert float((x - right[at]).abs().max()) <= 2e-5 * float(right[at].abs().max()), at


def test_the_variance_matters(checkpoints):
    """The same walk with eta = 1 is another one: nothing above passes by ignoring what the network says."""
    right, k = load_file(GOLDEN / "learned_variance.safetensors"), checkpoints[IMPROVED]
    x_T, tau = load_file(GOLDEN / IMPROVED / "expected.safetensors")["x_T"], (200, 172, 143, 115, 86, 58, 29, 1, 0)
    drawn = dict(zip(tau, right["noise"], strict=False))
    walk = ddim.trajectory(Clip(k.denoiser()), ddim.DDIM(eta=1.0), tau, x_T, drawn.get)
    with torch.no_grad():
        *_, last = walk
    assert float((last.x - right[f"{IMPROVED}/8.clip.x_0"]).abs().max()) > 0.02


@pytest.mark.parametrize("kind", ["learned_range", "learned"])
def test_steps_are_those_of_diffusers(kind):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(variance_type=kind, clip_sample=True)
    S = 1000 if kind == "learned" else 10
    scheduler.set_timesteps(S)
    said = network if kind == "learned_range" else lambda x, t: network(x, t).abs() * 1e-3
    x, tau = ddim.noise([0, 1], (3, 4), dtype=torch.float64), ddim.tau(1000, S, "leading")
    denoise = Clip(denoiser(kind, said))
    for t, s in itertools.islice(itertools.pairwise(tau), 12):
        z = ddim.noise([0, 1], (3, 4), step=t, purpose="test", dtype=torch.float64)
        ours = LEARNED.step(denoise, x, t, s, None, z).x
        out = said(x, torch.tensor([t - 1, t - 1]))
        real = diffusers.schedulers.scheduling_ddpm.randn_tensor
        diffusers.schedulers.scheduling_ddpm.randn_tensor = lambda *_, z=z, **__: z
        try:
            theirs = scheduler.step(out, t - 1, x).prev_sample
        finally:
            diffusers.schedulers.scheduling_ddpm.randn_tensor = real
        torch.testing.assert_close(ours, theirs.double(), rtol=2e-5, atol=2e-5)
        x = ours


def test_wrappers_hand_the_variance_on_and_guidance_takes_the_conditional_one():
    def conditional(x, t, label):
        return torch.cat([0.5 * x + label.view(-1, 1), x + 10.0 * label.view(-1, 1)], 1)

    x, t = ddim.noise([0, 1], (3,)), torch.tensor([500, 20])
    bare = NetworkDenoiser(conditional, SCHEDULE, learned_variance="learned_range")
    asked = labels(torch.tensor([3, 4]))
    right = bare(x, t, asked).variance
    torch.testing.assert_close(right, x + torch.tensor([[30.0], [40.0]]))
    for wrapped in (Clip(bare), DynamicThreshold(bare), Guided(bare, 3.0, 9), Guided(bare, 3.0, 9, rescale=0.5)):
        assert wrapped.variance == "learned_range"
        for times in (t, 500):
            assert torch.equal(wrapped(x, times, asked).variance, bare(x, times, asked).variance)


def refused(text, solver=LEARNED, tau=(1000, 500, 0), denoise=None):
    with pytest.raises(ddim.Refused, match=text) as found:
        ddim.sample(denoise or denoiser(), ddim.noise([0], (4,)), tau, solver=solver, seeds=[0])
    assert "\n" not in str(found.value)


def test_what_has_no_learned_variance_is_refused_in_one_line():
    refused("predicts a variance", denoise=ddim.GaussianDenoiser(SCHEDULE, 0.0, 1.0))
    refused("nobody knows", denoise=denoiser(True))
    refused("from t to t - 1, and this one goes from 1000 to 500", denoise=denoiser("learned"))
    refused("below 0", denoise=denoiser("learned", lambda x, t: torch.full((1, 8), -1.0)), tau=(2, 1, 0))
    refused("cannot walk towards more noise", tau=(0, 500, 1000))
    with pytest.raises(ddim.Refused, match=r"eta = 0\.5 or sigma = 'learned'"):
        ddim.DDIM(eta=0.5, sigma="learned")
    with pytest.raises(ddim.Refused, match="learned_range, learned, True or False; got 'range'"):
        denoiser("range")
    assert torch.equal(
        ddim.sample(denoiser(), ddim.noise([0], (4,)), (9, 4, 0), solver=ddim.DDIM(1.0, sigma="learned"), seeds=[0]),
        ddim.sample(denoiser(), ddim.noise([0], (4,)), (9, 4, 0), solver=LEARNED, seeds=[0]),
    )


def test_a_model_says_at_once_whether_it_can(checkpoints):
    model = ddim.Model(checkpoints[IMPROVED])
    sampler = model.sampler(steps=4, solver=LEARNED)
    sampler.rehearse()
    assert sampler.recipe["variance"] == "learned_range" and "variance" not in model.sampler(steps=4).recipe
    with pytest.raises(ddim.Refused, match="predicts a variance"):
        ddim.load("mnist").sampler(steps=4, solver=LEARNED)


@pytest.mark.parametrize("variance", [True, False])
def test_exported_with_its_variance_it_is_the_same_model_and_diffusers_own(variance, checkpoints, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    k = checkpoints[ADM]
    notes = export_checkpoint(tmp_path / "m", k, variance=variance)
    again = load_folder(tmp_path / "m")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "m")
    assert pipeline.unet.config.out_channels == (6 if variance else 3)
    if not variance:
        assert again.variance is None and type(pipeline).__name__ == "DDIMPipeline" and "left out" in notes[0]
        return
    assert (again.variance, again.learned_variance) == ("learned_range", True)
    assert type(pipeline).__name__ == "DDPMPipeline" and pipeline.scheduler.config.variance_type == "learned_range"
    x, y = ddim.noise([3], (3, 16, 16)), labels(torch.tensor([4]))
    with torch.no_grad():
        for mine, other in zip(k.denoiser()(x, 400, y), again.denoiser()(x, 400, y), strict=True):
            assert torch.equal(mine, other)
    with pytest.raises(ddim.Refused, match="no learned variance to keep"):
        export_checkpoint(tmp_path / "n", load_folder(ddim.load("mnist").folder), variance=True)
