"""A student is a model: it knows its own walk, keeps latents or says why not, and diffusers draws the same image."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import ddim
from conftest import save_tiny
from ddim.checkpoints import Student, open_checkpoint, save_checkpoint
from ddim.solve import Fresh

FOUR, TWO = (1000, 750, 500, 250, 0), (1000, 500, 0)


def student(folder, tmp_path, kind="progressive", tau=FOUR, guidance=1.0):
    told = Student(kind, tau, "ab" * 32, guidance)
    save_checkpoint(tmp_path / kind, replace(open_checkpoint(folder), student=told, clips=False, spacing="trailing"))
    return ddim.load(tmp_path / kind)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("v") / "teacher", prediction="v", clips=False)


@pytest.fixture(scope="module")
def four(teacher, tmp_path_factory):
    return student(teacher, tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="module")
def jump(teacher, tmp_path_factory):
    return student(teacher, tmp_path_factory.mktemp("jump"), "consistency", TWO)


def test_it_takes_its_own_steps_and_says_why_it_takes_no_others(four, teacher):
    assert four.checkpoint.student == Student("progressive", FOUR, "ab" * 32)
    for how in ({}, {"steps": 4}, {"spacing": "trailing"}, {"steps": 4, "spacing": "diffusers"}):
        assert four.sampler(**how).tau == FOUR
    assert four.tau() == FOUR and four.tau(4) == FOUR
    plain = ddim.load(teacher)
    same = plain.sample(3, tau=FOUR, label=1)
    assert torch.equal(four.sample(3, label=1), same)
    with pytest.raises(ddim.Refused, match=r"takes 4 steps, \[1000, 750, 500, 250, 0\].*`steps` = 20 would walk where"):
        four.sample(1, steps=20)
    with pytest.raises(ddim.Refused, match="has its own times"):
        four.sample(1, steps=4, spacing="logsnr")
    for how in ({"solver": "dpm++2m"}, {"eta": 0.5}):
        with pytest.raises(ddim.Refused, match="whole jumps, no slopes"):
            four.sample(1, **how)
    asked = {"tau": (1000, 500, 0), "eta": 0.5, "seed": 3}  # explicitly
    assert torch.equal(four.sample(2, **asked), plain.sample(2, **asked))


def test_it_is_another_reading_of_the_same_weights(four, jump, teacher):
    plain = ddim.load(teacher)
    assert len({model.checkpoint.identity for model in (four, jump, plain)}) == 3
    assert four.sampler().recipe["reading"]["student"]["tau"] == list(FOUR)


def test_a_progressive_student_keeps_latents(four):
    x = four.sample(2, label=0)
    z = four.encode(x, label=0)
    assert z.recipe.tau == FOUR
    assert float((four.decode(z, label=0) - x).abs().max()) < 1e-3
    assert float(z.certificate.psnr.min()) > 60


def test_a_consistency_student_samples_with_fresh_noise_and_refuses_to_encode(jump, teacher):
    plain = ddim.denoise.Consistent(ddim.load(teacher).denoiser(label=torch.tensor([2, 2])))
    x_T = ddim.noise([4, 9], (1, 8, 8))
    two = ddim.sample(plain, x_T, TWO, solver=Fresh(), seeds=[4, 9])
    assert torch.allclose(jump.sample(seeds=[4, 9], label=2), two, atol=1e-5)
    one = plain(x_T, 1000).x0
    assert torch.allclose(jump.sample(seeds=[4, 9], label=2, steps=1), one, atol=1e-5)
    assert torch.allclose(jump.sample(seeds=[9], label=2), two[1:], atol=1e-5)  # a seed, a picture
    with pytest.raises(ddim.Refused, match="made for 1 to 2 calls, got `steps` = 3"):
        jump.sample(1, steps=3)
    with pytest.raises(ddim.Refused, match="knows no way back to one latent"):
        jump.encode(two, label=2)
    with pytest.raises(ddim.Refused, match="knows no way back to one latent"):
        jump.decode(x_T, label=2)
    with pytest.raises(ddim.Refused, match="whole jumps"):
        jump.sample(1, solver="heun", tau=TWO)


def test_guidance_that_is_folded_in_is_not_given_twice(teacher, tmp_path):
    model = student(teacher, tmp_path, guidance=1.5)
    assert model.sample(1, label=1).shape == (1, 1, 8, 8)
    with pytest.raises(ddim.Refused, match=r"has guidance 1.5 in its weights"):
        model.sample(1, label=1, guidance=1.5)


@pytest.mark.parametrize(
    "told",
    [
        {"kind": "quick"}, {"tau": [1000, 0, 500]}, {"tau": [1000]}, {"tau": [1000, 500]}, {"teacher": 3},
        {"guidance": "much"}, {"more": 1}, {"tau": "1000, 0"},
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_line(four, told, tmp_path):
    import json
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(four.folder, folder)
    facts = json.loads((folder / "ddim.json").read_text())
    facts["student"] |= told
    (folder / "ddim.json").write_text(json.dumps(facts))
    with pytest.raises(ddim.Refused, match=r"ddim.json: student must be kind, tau, teacher and guidance"):
        ddim.load(folder)


def test_it_is_saved_imported_and_told(four, jump, tmp_path, capsys):
    again = ddim.load(four.save(tmp_path / "again"))
    assert again.checkpoint.student == four.checkpoint.student
    from ddim.cli import main

    for words in (["import", str(jump.folder), str(tmp_path / "imported")], ["info", str(tmp_path / "imported")]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    assert "consistency, up to 2 steps, times [1000, 500, 0]; teacher sha256 abababab" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(four.folder), "--count", "2", "--label", "1", "--out", str(tmp_path / "made")])
    assert stop.value.code == 0 and len(list((tmp_path / "made").glob("0*.png"))) == 2
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(four.folder), "--steps", "9", "--out", str(tmp_path / "none")])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "--steps = 9 would walk where it was never taught; leave --steps" in said


def test_a_network_of_ones_own_may_be_a_student(tmp_path):
    model = ddim.Model.from_network(torch.nn.Identity(), ddim.Schedule.linear(1000), shape=(3,), prediction="v")
    model.checkpoint = replace(model.checkpoint, student=Student("progressive", TWO, ""))
    again = ddim.load(model.save(tmp_path / "own"), network=torch.nn.Identity())
    assert again.tau() == TWO


def test_diffusers_draws_the_same_image(tmp_path):
    from diffusers import DDIMPipeline

    folder = save_tiny(tmp_path / "plain", prediction="v", num_classes=None, null_label=None, clips=False)
    model = student(folder, tmp_path)
    pipeline = DDIMPipeline.from_pretrained(model.folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.scheduler.config.timestep_spacing == "trailing"
    x_T = ddim.noise([5], (1, 8, 8))

    class Given:  # DDIMPipeline takes no latents: it draws them here
        def __call__(self, *shape, **how):
            return x_T

    import diffusers.pipelines.ddim.pipeline_ddim as there

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(there, "randn_tensor", Given())
        made = pipeline(num_inference_steps=4, output_type="np").images
    ours = ((model.sample(latents=x_T)[0].permute(1, 2, 0) + 1) / 2).clamp(0, 1).numpy()
    assert np.abs(made[0] - ours).max() < 1e-5
