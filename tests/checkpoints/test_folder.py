"""Model folders: written whole or not at all, read by diffusers, and every scheduler field honoured or refused."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ddim
from ddim.checkpoints import export_checkpoint, load_folder, open_checkpoint, save_checkpoint, save_folder
from ddim.checkpoints.families.diffusers import betas, scheduler
from ddim.process import noise
from ddim.refused import Refused

GOLDEN = Path(__file__).parents[1] / "data/golden"
MNIST = GOLDEN / "diffusers/mnist-like/pipeline"
ADM = GOLDEN / "guided-diffusion/adm-legacy-attention/ema_0.9999_000100.pt"
COSINE = GOLDEN / "improved-diffusion/learn-sigma-cosine/ema_0.9999_000100.pt"


def tiny(**changes: Any) -> nn.Module:
    from diffusers import UNet2DModel

    settings: dict[str, Any] = {
        "sample_size": (8, 12), "in_channels": 1, "out_channels": 1, "block_out_channels": (8, 8),
        "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return UNet2DModel(**(settings | changes)).eval()


SCHEDULES = {
    "linear": ddim.Schedule.linear(1000),
    "odd linear": ddim.Schedule.linear(37, beta_start=3e-3, beta_end=0.3),
    "scaled_linear": ddim.Schedule.scaled_linear(1000),
    "cosine": ddim.Schedule.cosine(200),
    "sigmoid": ddim.Schedule.sigmoid(50),
    "cosine to zero": ddim.Schedule.cosine(200).zero_terminal_snr(),
    "no name": ddim.Schedule.from_alpha_bar_function(lambda u: (1 - 0.99 * u) ** 2, 20),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_any_schedule_comes_back_bit_for_bit(name: str, prediction: str, tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    schedule, unet = SCHEDULES[name], tiny()
    save_folder(tmp_path / "m", unet, schedule, prediction=prediction, meta={"provenance": "a test"})
    k = load_folder(tmp_path / "m")
    assert torch.equal(k.schedule.alpha_bar, schedule.alpha_bar)
    assert (k.prediction, k.shape, k.family) == (prediction, (1, 8, 12), "ddim")
    assert all(
        torch.equal(a, b) for a, b in zip(unet.state_dict().values(), k.network.unet.state_dict().values(), strict=True)
    )
    theirs = DDIMScheduler.from_pretrained(tmp_path / "m/scheduler").alphas_cumprod.double()  # float32 inside
    assert torch.allclose(theirs, schedule.alpha_bar[1:], rtol=2e-4, atol=1e-6)
    named = json.loads((tmp_path / "m/scheduler/scheduler_config.json").read_text())
    assert (named["trained_betas"] is None) == (name not in ("sigmoid", "no name"))
    (tmp_path / "m/ddim.json").unlink()  # the config alone gives the same table up to rounding
    assert torch.allclose(load_folder(tmp_path / "m").schedule.alpha_bar, schedule.alpha_bar, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("clip", [False, True])
def test_diffusers_pipeline_makes_the_same_images(clip: bool, tmp_path: Path) -> None:
    from diffusers import DDIMPipeline

    k = open_checkpoint(
        COSINE, config={"image_size": 16, "num_heads": 2, "diffusion_steps": 200, "noise_schedule": "cosine"}
    )
    assert k.learned_variance and k.time_scale == 5.0
    notes = export_checkpoint(tmp_path / "m", k)
    assert any("variance" in n for n in notes)
    pipe = DDIMPipeline.from_pretrained(tmp_path / "m")
    pipe.scheduler.register_to_config(clip_sample=clip)
    x = x_T = noise([3, 4], k.shape)
    pipe.scheduler.set_timesteps(10)
    with torch.no_grad():
        for t in pipe.scheduler.timesteps:
            x = pipe.scheduler.step(pipe.unet(x, t).sample, t, x, use_clipped_model_output=clip).prev_sample
    tau = (*(int(t) + 1 for t in pipe.scheduler.timesteps), 0)
    for model in (k, load_folder(tmp_path / "m")):
        denoise = ddim.Clip(model.denoiser()) if clip else model.denoiser()
        ours = ddim.sample(denoise, x_T, tau)
        assert float((ours - x).abs().max()) <= 1e-4 * float(x.abs().max())


def test_a_run_folder_keeps_what_is_not_ours(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "state").mkdir(parents=True)
    (run / "state/step.pt").write_text("precious")
    for seed in (0, 1):
        unet = tiny()
        save_folder(run, unet, SCHEDULES["linear"], prediction="eps", meta={"seed": seed})
    assert (run / "state/step.pt").read_text() == "precious"
    assert load_folder(run).meta["seed"] == 1
    assert torch.equal(load_folder(run).network.unet.conv_in.weight, unet.conv_in.weight)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]  # nothing temporary is left


def test_a_failed_write_leaves_the_old_model(tmp_path: Path) -> None:
    save_folder(tmp_path / "m", tiny(), SCHEDULES["linear"], prediction="eps", meta={})
    before = {p: p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file()}
    with pytest.raises(Refused, match=r"ddim\.json cannot be written"):
        save_folder(tmp_path / "m", tiny(), SCHEDULES["linear"], prediction="eps", meta={"bad": object()})
    assert {p: p.read_bytes() for p in (tmp_path / "m").rglob("*") if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_classes_labels_and_half_precision(tmp_path: Path) -> None:
    meta = {"num_classes": 2, "null_label": 2, "labels": ["cat", "dog"]}
    unet = tiny(num_class_embeds=3)
    save_folder(tmp_path / "m", unet, SCHEDULES["linear"], prediction="eps", meta=meta, dtype=torch.float16)
    k = load_folder(tmp_path / "m")
    assert (k.num_classes, k.null_label, k.labels) == (2, 2, ("cat", "dog"))
    assert torch.equal(k.network.unet.conv_in.weight, unet.conv_in.weight.half().float())
    x, t = noise([0], k.shape), torch.tensor([5])
    with torch.no_grad():
        assert torch.equal(k.network(x, t), k.network(x, t, torch.tensor([2])))
        assert not torch.equal(k.network(x, t), k.network(x, t, torch.tensor([0])))


def copied(tmp_path: Path, **changes: Any) -> Path:
    """The MNIST-like pipeline with scheduler fields changed (None removes one)."""
    shutil.copytree(MNIST, tmp_path / "m")
    path = tmp_path / "m/scheduler/scheduler_config.json"
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in fields.items() if v != "remove"}))
    return tmp_path / "m"


@pytest.mark.parametrize(
    ("changes", "attribute", "value"),
    [
        ({"prediction_type": "v_prediction"}, "prediction", "v"),
        ({"prediction_type": "sample"}, "prediction", "x0"),
        ({"prediction_type": "remove", "predict_epsilon": False}, "prediction", "x0"),
        ({"clip_sample": False}, "clips", False),
        ({"clip_sample_range": 2.5}, "clip_range", 2.5),
        ({"thresholding": True}, "thresholding", True),
        ({"dynamic_thresholding_ratio": 0.9}, "threshold_quantile", 0.9),
        ({"sample_max_value": 3.0}, "threshold_maximum", 3.0),
        ({"timestep_spacing": "trailing"}, "spacing", "trailing"),
        ({"steps_offset": 1}, "steps_offset", 1),
        ({"set_alpha_to_one": False}, "ends_at", 1),
        ({"variance_type": "fixed_large"}, "variance_type", "fixed_large"),
        ({"_class_name": "PNDMScheduler", "clip_sample": "remove", "variance_type": "remove"}, "ends_at", 1),
        ({"_class_name": "HeunDiscreteScheduler", "clip_sample": "remove"}, "clips", False),
    ],
)
def test_every_field_that_changes_the_maths(
    changes: dict[str, Any], attribute: str, value: object, tmp_path: Path
) -> None:
    assert getattr(load_folder(copied(tmp_path, **changes)), attribute) == value


@pytest.mark.parametrize(
    "changes",
    [
        {"beta_schedule": "linear", "beta_start": 0.002, "beta_end": 0.03},
        {"beta_schedule": "scaled_linear"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},
        {"beta_schedule": "laplace"},
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    ],
)
def test_schedules_are_those_of_diffusers(changes: dict[str, Any], tmp_path: Path) -> None:
    """Sigmoid and laplace included, which diffusers trains with and cannot sample by DDIM."""
    from diffusers import DDPMScheduler

    settings = json.loads((MNIST / "scheduler/scheduler_config.json").read_text()) | changes
    try:
        theirs = DDPMScheduler.from_config(settings)
    except NotImplementedError:
        pytest.skip(f"this diffusers has no {changes}")  # 0.35 has no laplace
    ours = load_folder(copied(tmp_path, **changes)).schedule
    assert torch.allclose(ours.alpha_bar[1:], theirs.alphas_cumprod.double(), rtol=2e-3, atol=1e-6)  # theirs: float32


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"beta_schedule": "exp"}, "exp"),
        ({"prediction_type": "flow"}, "flow"),
        ({"timestep_spacing": "logarithmic"}, "logarithmic"),
        ({"variance_type": "huge"}, "huge"),
        ({"clip_sample": "yes"}, "clip_sample"),
        ({"clip_sample_range": -1}, "clip_sample_range"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps"),
        ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
        ({"brand_new_field": 1}, "brand_new_field"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatch"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"predict_epsilon": False, "prediction_type": "v_prediction"}, "contradicts"),
    ],
)
def test_unknown_fields_and_values_are_errors(changes: dict[str, Any], word: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=word):
        load_folder(copied(tmp_path, **changes))


def test_a_walk_that_stops_at_the_first_level(tmp_path: Path) -> None:
    """set_alpha_to_one = False: diffusers ends at alphas_cumprod[0], which is our t = 1, not 0."""
    from diffusers import DDIMScheduler

    k = load_folder(copied(tmp_path, set_alpha_to_one=False, steps_offset=1, clip_sample=False))
    assert k.own_tau(4) == (752, 502, 252, 2, 1)
    theirs = DDIMScheduler(set_alpha_to_one=False, steps_offset=1, clip_sample=False)
    theirs.set_timesteps(4)
    oracle = ddim.GaussianDenoiser(k.schedule, 0.1, 0.25)
    x = x_T = noise([0], (1, 4, 4), dtype=torch.float64)
    for t in theirs.timesteps.tolist():
        x = theirs.step(oracle(x, t + 1).eps, t, x).prev_sample
    assert torch.allclose(ddim.sample(oracle, x_T, k.own_tau(4)), x, atol=1e-5)


@pytest.mark.parametrize(("spacing", "steps"), [("linspace", 10), ("linspace", 50), ("trailing", 30), ("trailing", 61)])
def test_diffusers_walks_its_own_times_wrongly(spacing: str, steps: int) -> None:
    """peers.md 1.1: its step goes from t to t - T // S, not to the next time of its list.

    Data N(0, 1/4) has a closed form for one DDIM step between any two levels, so the right answer for a list of
    times is a product: each step maps x by (s' s v + n' n) / (s^2 v + n^2). Ours gives it, theirs does not.
    """
    from diffusers import DDIMScheduler

    schedule, v = ddim.Schedule.linear(1000), 0.25
    oracle = ddim.GaussianDenoiser(schedule, 0.0, v)
    tau = ddim.tau(1000, steps, spacing)
    gain = 1.0
    for t, s in itertools.pairwise(tau):
        a, b = schedule.at(t), schedule.at(s)
        gain *= (b.signal * a.signal * v + b.noise * a.noise) / (a.signal**2 * v + a.noise**2)
    x_T = torch.ones(1, 1, dtype=torch.float64)
    assert float(ddim.sample(oracle, x_T, tau)) == pytest.approx(gain, rel=1e-10)
    theirs = DDIMScheduler(timestep_spacing=spacing, clip_sample=False)
    theirs.set_timesteps(steps)
    x = x_T.clone()
    for t in theirs.timesteps.tolist():
        x = theirs.step(oracle(x, max(t + 1, 1)).eps, t, x).prev_sample
    assert abs(float(x) - gain) > 0.003


def test_bare_network_folder_bin_and_root_layout(tmp_path: Path) -> None:
    shutil.copytree(MNIST / "unet", tmp_path / "bare")
    k = open_checkpoint(tmp_path / "bare")
    assert k.schedule == ddim.Schedule.linear(1000) and any("assumed" in n for n in k.notes)
    shutil.copy(MNIST / "scheduler/scheduler_config.json", tmp_path / "bare")  # google/ddpm-* on the hub lie like this
    assert not any("no scheduler_config" in n for n in open_checkpoint(tmp_path / "bare").notes)
    given = open_checkpoint(tmp_path / "bare", config={"beta_schedule": "squaredcos_cap_v2", "data_range": [0, 1]})
    assert given.schedule == ddim.Schedule.cosine(1000) and given.data_range == (0.0, 1.0)


def test_other_pipelines_are_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    index = {"unet": ["diffusers", "UNet2DConditionModel"], "scheduler": ["diffusers", "DDIMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(Refused, match="UNet2DConditionModel"):
        load_folder(folder)
    index = {"unet": ["diffusers", "UNet2DModel"], "vqvae": ["diffusers", "VQModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(Refused, match="vqvae"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"block_out_channels": [10**6, 10**6]}, "another shape"),
        ({"layers_per_block": 10**9}, "layers_per_block"),
        ({"down_block_types": ["NoSuchBlock", "AttnDownBlock2D"]}, "NoSuchBlock"),
        ({"strange": 1}, "strange"),
    ],
)
def test_absurd_network_configs_cost_no_memory(changes: dict[str, Any], word: str, tmp_path: Path) -> None:
    folder = copied(tmp_path)
    path = folder / "unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(Refused, match=word):
        load_folder(folder)


def test_edited_folders_are_noticed(tmp_path: Path) -> None:
    save_folder(tmp_path / "m", tiny(), SCHEDULES["linear"], prediction="eps", meta={})
    save_folder(tmp_path / "n", tiny(), SCHEDULES["linear"], prediction="eps", meta={})
    shutil.copy(tmp_path / "n/unet/diffusion_pytorch_model.safetensors", tmp_path / "m/unet")
    with pytest.raises(Refused, match=r"is not what ddim\.json says it is"):
        load_folder(tmp_path / "m")
    shutil.copy(MNIST / "scheduler/scheduler_config.json", tmp_path / "n/scheduler")
    assert load_folder(tmp_path / "n").schedule == SCHEDULES["linear"]
    path = tmp_path / "n/scheduler/scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_schedule": "squaredcos_cap_v2"}))
    with pytest.raises(Refused, match="another schedule"):
        load_folder(tmp_path / "n")


def test_heads_no_diffusers_config_can_say(tmp_path: Path) -> None:
    """4 heads at 32 and at 64 channels: works here, survives our folder, and diffusers refuses it loudly."""
    from diffusers import DDIMPipeline

    from ddim.checkpoints.families.diffusers import network as build

    config = dict(tiny(block_out_channels=(8, 16), attention_head_dim=8).config)
    state = tiny(block_out_channels=(8, 16), attention_head_dim=8).state_dict()
    plain, changed = (
        build.filled_unet(config | extra, state, "test") for extra in ({}, {"_ddim": {"attention_heads": 4}})
    )
    x, t = noise([0], (1, 8, 12)), torch.tensor([5])
    with torch.no_grad():
        assert not torch.allclose(plain(x, t).sample, changed(x, t).sample, atol=1e-6)
    save_folder(tmp_path / "m", changed, SCHEDULES["linear"], prediction="eps", meta={})
    with torch.no_grad():
        assert torch.equal(load_folder(tmp_path / "m").network(x, t), changed(x, t).sample)
    with pytest.raises((ValueError, AttributeError)):
        DDIMPipeline.from_pretrained(tmp_path / "m")
    with pytest.raises(Refused, match="diffusers cannot run"):
        export_checkpoint(tmp_path / "e", load_folder(tmp_path / "m"))


def test_scheduler_names_are_ours_and_theirs() -> None:
    for name, schedule in SCHEDULES.items():
        again = scheduler.read(json.loads(json.dumps(scheduler.write(schedule, "v")))).process
        assert isinstance(again, ddim.Schedule) and betas.like(again, schedule), name


def test_foreign_files_save_with_their_story(tmp_path: Path) -> None:
    k = open_checkpoint(ADM, config={"image_size": 16, "num_head_channels": 16})
    save_checkpoint(tmp_path / "m", k)
    meta = json.loads((tmp_path / "m/ddim.json").read_text())
    assert meta["provenance"]["family"] == "openai" and meta["provenance"]["file"] == ADM.name
    assert meta["provenance"]["sha256"] == k.sha256 and meta["family"] == "openai"
    assert load_folder(tmp_path / "m").notes == k.notes
