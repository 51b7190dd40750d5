"""diffusers folders of the other schedulers: read, and walked beside diffusers' own scheduler step by step."""

import json
import math

import diffusers
import pytest
import torch
from torch import nn

import ddim
from ddim.checkpoints import load_folder, save_checkpoint
from ddim.process import TimeLabel


def unet(**changes):
    """A small network with weights that say something."""
    settings = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 16),
                "norm_num_groups": 4,
                "layers_per_block": 1, "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "attention_head_dim": 8,
                "up_block_types": ("AttnUpBlock2D", "UpBlock2D")} | changes  # fmt: skip
    network = diffusers.UNet2DModel(**settings).eval()
    weights = ddim.noise([1], (sum(p.numel() for p in network.parameters()),), purpose="weights")[0]
    at = 0
    for name, p in network.named_parameters():
        own = weights[at : at + p.numel()].view(p.shape)
        at += p.numel()
        p.data = own * (0.7 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1)
        if name.endswith("norm.weight") or (p.ndim == 1 and "norm" in name and name.endswith("weight")):
            p.data += 1.0
    return network


def folder(place, network, scheduler):
    network.save_pretrained(place / "unet")
    (place / "scheduler").mkdir()
    (place / "scheduler/scheduler_config.json").write_text(scheduler.to_json_string())
    return place


def theirs(scheduler, network, x, steps, **how):
    """diffusers' deterministic loop, in float64 beside a float32 network."""
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        for t in scheduler.timesteps:
            shown = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            out = network(shown, t.reshape(1).expand(len(x)).float()).sample
            x = scheduler.step(out, t, x, **how).prev_sample
    return x


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edm(tmp_path, kind):
    """EDMEulerScheduler without churn: Euler on its own sigmas, which is DDIM on the edm process."""
    scheduler = diffusers.EDMEulerScheduler(sigma_data=0.7, prediction_type=kind)
    network = unet()
    model = ddim.load(folder(tmp_path / "m", network, scheduler))
    x = ddim.noise([0, 1], (1, 8, 8))
    scheduler.set_timesteps(6)
    sigmas = scheduler.sigmas.double().tolist()
    wanted = theirs(scheduler, network, sigmas[0] * x, 6)
    scale = 1.0 if kind == "epsilon" else 0.7  # v is of x/sigma_data
    found = model.sample(latents=sigmas[0] * x / scale, tau=[s / scale for s in sigmas], clip=False)
    close(found, wanted)
    assert model.checkpoint.prediction == ("edm" if kind == "epsilon" else "v") and model.process.kind == "edm"


def test_flow_matching(tmp_path):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    network = unet()
    model = ddim.load(folder(tmp_path / "m", network, scheduler))
    x = ddim.noise([0, 1], (1, 8, 8))
    scheduler.set_timesteps(5)
    close(model.sample(latents=x, tau=scheduler.sigmas.double().tolist(), clip=False), theirs(scheduler, network, x, 5))
    assert "shift = 3" in model.checkpoint.notes[0] and model.checkpoint.label == TimeLabel("time", 1000.0)


def test_a_transformer_of_classes(tmp_path):
    """DiT of pixels under flow matching: beside diffusers' loop, with a class and none, and kept by our folder."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    network = diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, num_layers=2, sample_size=8, patch_size=2,
        num_embeds_ada_norm=3, norm_num_groups=4,
    ).eval()  # fmt: skip
    for i, p in enumerate(network.parameters()):
        p.data = 0.2 * ddim.noise([i], tuple(p.shape), purpose="dit")[0]
    place = tmp_path / "m"
    network.save_pretrained(place / "transformer")
    scheduler.save_pretrained(place / "scheduler")
    model = ddim.load(place, config={"null_label": 3})
    assert (model.num_classes, model.null_label, model.shape) == (3, 3, (1, 8, 8))
    x, label = ddim.noise([0, 1], (1, 8, 8)), torch.tensor([2, 3])
    scheduler.set_timesteps(4)
    wanted = x
    with torch.no_grad():
        for t in scheduler.timesteps:
            out = network(wanted, t.expand(2), class_labels=label).sample
            wanted = scheduler.step(out, t, wanted).prev_sample
    tau = scheduler.sigmas.double().tolist()
    close(model.sample(latents=x[:1], tau=tau, label=2, clip=False), wanted[:1])
    close(model.sample(latents=x[1:], tau=tau, clip=False), wanted[1:])  # no class: the last embedding
    again = ddim.load(model.save(tmp_path / "s"))
    assert torch.equal(*(m.sample(2, steps=3, label=1) for m in (model, again)))


def test_euler_with_edm_settings(tmp_path):
    """timestep_type continuous and v: x at unit variance, log(sigma)/4 (as stable video diffusion's)."""
    scheduler = diffusers.EulerDiscreteScheduler(
        timestep_type="continuous",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.01,
        sigma_max=50.0,
    )
    network = unet()
    model = ddim.load(folder(tmp_path / "m", network, scheduler))
    x = ddim.noise([0, 1], (1, 8, 8))
    scheduler.set_timesteps(6)
    sigmas = scheduler.sigmas.double().tolist()
    wanted = theirs(scheduler, network, sigmas[0] * x, 6)
    close(model.sample(latents=sigmas[0] * x, tau=[50.0, *sigmas[1:]], clip=False), wanted)


def test_a_dpm_solver_with_flow_sigmas(tmp_path):
    scheduler = diffusers.DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", solver_order=1, final_sigmas_type="zero"
    )
    network = unet()
    model = ddim.load(folder(tmp_path / "m", network, scheduler))
    scheduler.set_timesteps(4)
    sigmas = scheduler.sigmas.double().tolist()
    at = [float(model.checkpoint.time(torch.tensor([s], dtype=torch.float64))) for s in sigmas[:-1]]
    assert at == pytest.approx([float(t) for t in scheduler.timesteps], abs=1.0)  # theirs are rounded down
    assert model.process == ddim.process.flow() and model.checkpoint.prediction == "velocity"


def test_score_sde_ve(tmp_path):
    """Its pipeline asks the network for the score of images in 0..1 at the noise; ours of the same x says the same."""
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=50.0)
    network = unet(time_embedding_type="fourier", center_input_sample=True)
    model = ddim.load(folder(tmp_path / "m", network, scheduler))
    assert model.process == ddim.process.ve(0.01, 50.0) and model.checkpoint.data_range == (0.0, 1.0)
    scheduler.set_timesteps(7)
    scheduler.set_sigmas(7)
    times = model.tau(7)
    for t, theirs_t, sigma in zip(times, scheduler.timesteps, scheduler.sigmas, strict=False):
        assert t == pytest.approx(float(theirs_t), abs=1e-6)
        x = 0.5 + float(sigma) * ddim.noise([0, 1], (1, 8, 8))
        with torch.no_grad():
            score = network(x, sigma.expand(2)).sample
            eps = model.denoiser(clip=False)(x, t).eps
        close(-eps / float(sigma), score)


def test_karras_ve(tmp_path):
    """Its pipeline, without churn, by the words of its own code: sigma/2 and (x + 1)/2; the derivative is eps."""
    from diffusers.schedulers.deprecated.scheduling_karras_ve import KarrasVeScheduler

    scheduler = KarrasVeScheduler(s_churn=0.0)
    network = unet(time_embedding_type="fourier", center_input_sample=True)
    model = ddim.load(folder(tmp_path / "m", network, scheduler))
    for sigma in (0.05, 3.0, 60.0):
        x = 0.2 + sigma * ddim.noise([0, 1], (1, 8, 8))
        half = torch.full((2,), sigma / 2)
        with torch.no_grad():
            out = (sigma / 2) * network((x + 1) / 2, half).sample
            t = model.process.time_of(sigma / 2)
            eps = model.denoiser(clip=False)((x + 1) / 2, t).eps
        step = scheduler.step(out, sigma, 0.5 * sigma, x)
        close(eps, step.derivative)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"_class_name": "EDMEulerScheduler", "sigma_min": 5.0, "sigma_max": 1.0}, "needs 0 < first < T"),
        ({"_class_name": "EDMEulerScheduler", "sigma_data": -1}, "sigma_data must be a number above 0"),
        ({"_class_name": "EDMEulerScheduler", "prediction_type": "sample"}, "prediction_type = 'sample' is unknown"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "runs from the image to noise"),
        ({"_class_name": "ScoreSdeVeScheduler", "sigma_mix": 2.0}, "unknown setting: sigma_mix"),
        ({"_class_name": "LCMScheduler"}, "scheduler 'LCMScheduler' is unknown"),
    ],
)
def test_what_a_scheduler_cannot_say(tmp_path, changes, words):
    place = folder(tmp_path / "m", unet(), diffusers.EDMEulerScheduler())
    (place / "scheduler/scheduler_config.json").write_text(json.dumps(changes))
    with pytest.raises(ddim.Refused, match=words):
        ddim.load(place)


def test_ddim_json_and_the_scheduler_must_be_of_one_process(tmp_path):
    k = load_folder(folder(tmp_path / "m", unet(), diffusers.FlowMatchEulerDiscreteScheduler()))
    save_checkpoint(tmp_path / "s", k)
    path = tmp_path / "s/scheduler/scheduler_config.json"
    path.write_text(json.dumps({"_class_name": "EDMEulerScheduler"}))
    with pytest.raises(ddim.Refused, match=r"ddim.json's process is another"):
        load_folder(tmp_path / "s")


class Clean(nn.Module):
    def forward(self, x, t):
        return 0 * x


def test_only_named_processes_fit_a_file(tmp_path):
    own = ddim.process.Continuous("mine", lambda t: 1.0, lambda t: 3 * t)
    model = ddim.Model.from_network(Clean(), own, shape=(1, 4, 4), prediction="x0")
    assert math.isfinite(float(model.sample(1, steps=3).sum()))
    with pytest.raises(ddim.Refused, match="functions of your own, which no file can hold"):
        model.save(tmp_path / "m")
