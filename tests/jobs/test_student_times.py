"""A student with times of its own: every stage divides them, they are kept, and diffusers can walk them too."""

from dataclasses import replace

import pytest
import torch

import ddim
from conftest import save_tiny
from ddim.checkpoints import Student, open_checkpoint, save_checkpoint
from ddim.cli import main
from ddim.jobs import Cadence, StudentPlan, StudentRecipe, distil_run, own_images
from ddim.model import through

OWN = (1000, 587, 405, 190, 0)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def teacher(tmp_path):
    return ddim.load(save_tiny(tmp_path / "teacher", prediction="v"))


def test_each_step_is_divided_evenly():
    schedule = ddim.Schedule.linear(1000)
    assert through(schedule, OWN, 1) == OWN
    assert through(schedule, OWN, 2) == (1000, 794, 587, 496, 405, 298, 190, 95, 0)  # 793.5 to even
    assert through(schedule, (1000, 500, 0), 4) == ddim.tau(schedule, 8, "trailing")
    process = ddim.process.flow()
    assert through(process, (1.0, 0.4, 0.0), 2) == (1.0, 0.7, 0.4, 0.2, 0.0)


def test_the_teacher_walks_through_the_times_of_every_stage(teacher, tmp_path):
    recipe = StudentRecipe(start=8, stages=(4, 2), updates=1, batch_size=4, tau=(1000, 400, 0))
    plan = StudentPlan(tmp_path / "run", teacher, own_images(teacher, 12), recipe, "ddim distil ...", "cpu")
    assert plan.taught(0) == (1000, 850, 700, 550, 400, 300, 200, 100, 0)
    assert plan.times(0) == plan.taught(1) == (1000, 700, 400, 200, 0) and plan.times(1) == (1000, 400, 0)
    list(distil_run(plan, Cadence(1, 1, 1, 0)))
    student = ddim.load(tmp_path / "run")
    assert student.tau() == (1000, 400, 0) and student.checkpoint.meta["provenance"]["recipe"]["tau"] == [1000, 400, 0]
    assert torch.equal(student.sample(2, label=0), student.sample(2, label=0, tau=(1000, 400, 0)))
    with pytest.raises(ddim.Refused, match="tau was"):
        next(distil_run(replace(plan, recipe=replace(recipe, tau=())), Cadence(1, 1, 1, 0), resume=True))
    with pytest.raises(ddim.Refused, match="a student of its own 2 calls: give `start` 2, no `tau`"):
        onward = replace(recipe, start=2, stages=(1,), tau=(1000, 0))
        StudentPlan(tmp_path / "next", student, plan.images, onward, "", "cpu")


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"tau": (1000, 0)}, "a student of 2 steps has as many times and 0"),
        ({"tau": (900, 400, 0)}, "begins at pure noise, t = 1000: `tau` begins at 900"),
        ({"tau": (1000, 2, 0)}, "that 4 of the teacher's do not fit in"),
        ({"tau": (1000, 400, 1)}, "must end at 0"),
        ({"tau": (1000, 1000, 0)}, "fall"),
        ({"tau": (1000, 0), "method": "tuning", "stages": (1,)}, "may be asked at any time: leave `tau` out"),
    ],
)
def test_times_that_cannot_be(teacher, tmp_path, changes, words):
    images = own_images(teacher, 12)
    with pytest.raises(ddim.Refused, match=words):
        StudentPlan(tmp_path / "run", teacher, images, StudentRecipe(**{"start": 8, "stages": (2,)} | changes))


def test_the_command_takes_times_or_those_that_were_tuned(teacher, tmp_path, capsys):
    def distil(run, *words):
        with pytest.raises(SystemExit) as stop:
            main(["distil", str(teacher.folder), "--out", str(run), "--to", "2", "--from", "4", "--updates", "1",
                  "--batch-size", "4", "--preview-every", "0", "--made", "12", "--device", "cpu", *words])  # fmt: skip
        return stop.value.code, capsys.readouterr().err

    code, said = distil(tmp_path / "a", "--tau", "tuned")
    assert code == 2 and "no tuned times for solver ddim and 2 steps" in said and not (tmp_path / "a").exists()
    code, said = distil(tmp_path / "a", "--tau", "1000,x,0")
    assert code == 2 and '--tau takes times like "981,640,1,0"' in said and not (tmp_path / "a").exists()
    teacher.save_tau((1000, 380, 0), "ddim")
    assert distil(tmp_path / "a", "--tau", "tuned")[0] == 0 and distil(tmp_path / "b", "--tau", "1000,380,0")[0] == 0
    one, two = (ddim.load(tmp_path / name) for name in "ab")
    assert one.tau() == two.tau() == (1000, 380, 0) and one.weights_hash == two.weights_hash
    teacher.save_tau((1000, 700, 0), "ddim")  # a run keeps those it began with
    with pytest.raises(SystemExit) as stop:
        main(["distil", "--resume", str(tmp_path / "a")])
    assert stop.value.code == 0, capsys.readouterr().err
    assert distil(tmp_path / "even")[0] == 0
    code, said = distil(tmp_path / "even", "--resume", "--tau", "tuned")
    assert code == 2 and "tau was None and is now (1000, 700, 0)" in said
    stored = tmp_path / "a/state/recipe.json"
    stored.write_text(stored.read_text().replace("380", '"380"'))
    code, said = distil(tmp_path / "a", "--resume", "--tau", "tuned")
    assert code == 2 and "recipe.json is damaged: tau must be a list of numbers" in said


def test_diffusers_walks_them_by_its_dpm_solver_of_order_one(tmp_path):
    from diffusers import DPMSolverMultistepScheduler, UNet2DModel

    plain = save_tiny(tmp_path / "plain", prediction="v", num_classes=None, null_label=None, clips=False)
    told = Student("progressive", OWN, "ab" * 32)
    save_checkpoint(tmp_path / "four", replace(open_checkpoint(plain), student=told, clips=False, spacing="trailing"))
    unet = UNet2DModel.from_pretrained(tmp_path / "four/unet")
    scheduler = DPMSolverMultistepScheduler.from_pretrained(
        tmp_path / "four/scheduler", solver_order=1, final_sigmas_type="zero"
    )
    scheduler.set_timesteps(timesteps=[t - 1 for t in OWN[:-1]])
    x = x_T = ddim.noise([5, 6], (1, 8, 8))
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(unet(x, t).sample, t, x).prev_sample
    assert float((x - ddim.load(tmp_path / "four").sample(latents=x_T)).abs().max()) < 1e-5
