"""Making a student as a job: killed anywhere it goes on bit for bit; its folders, its refusals, its provenance."""

import copy
import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

import ddim
from conftest import save_tiny
from ddim.cli import main
from ddim.files import HOST
from ddim.jobs import Cadence, StudentPlan, StudentRecipe, distil_run, good_start, own_images
from ddim.jobs.distil.run import refuse_student
from ddim.jobs.train import checkpoints
from ddim.refused import Refused

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
CADENCE = Cadence(6, checkpoint_every=2, log_every=3, preview_every=0)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return ddim.load(save_tiny(tmp_path_factory.mktemp("teacher") / "model", prediction="v"))


@pytest.fixture(scope="module")
def images(teacher):
    return own_images(teacher, 12)


def plan_for(teacher, images, run, **changes):
    how = {"start": 8, "stages": (4, 2), "updates": 6, "batch_size": 4, "lr": 1e-3, "ema": 0.5}
    return StudentPlan(run, teacher, images, StudentRecipe(**how | changes), "ddim distil ...", "cpu")


@pytest.fixture(scope="module")
def whole(teacher, images, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    told = list(distil_run(plan_for(teacher, images, run), replace(CADENCE, preview_every=4)))
    assert [p.done for p in told] == list(range(1, 13)) and {p.total for p in told} == {12}
    assert [p.steps for p in told] == [4] * 6 + [2] * 6
    return run


def alike(a, b):
    return all((a / where / WEIGHTS).read_bytes() == (b / where / WEIGHTS).read_bytes() for where in
               ("", "stages/steps-4", "stages/steps-2"))  # fmt: skip


@pytest.mark.parametrize("kills", [(3,), (6,), (1, 5, 4)], ids=str)
def test_killed_anywhere_it_makes_the_same_student(teacher, images, whole, tmp_path, kills):
    """The disk is left as after kill -9: inside a stage, at its very end, in the next, and again and again."""
    plan = plan_for(teacher, images, tmp_path / "run")
    for i, updates in enumerate(kills):
        walk = distil_run(plan, CADENCE, resume=i > 0)
        assert len(list(islice(walk, updates))) == updates
        walk.close()
    list(distil_run(plan, CADENCE, resume=True))
    assert alike(tmp_path / "run", whole)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [(line["step"], line["stage"]) for line in lines] == [(n, (n - 1) // 6) for n in range(3, 13, 3)]


def test_the_comparison_can_fail(teacher, images, whole, tmp_path):
    list(distil_run(plan_for(teacher, images, tmp_path / "run", seed=1), CADENCE))
    assert not alike(tmp_path / "run", whole)


def test_every_stage_is_a_model_and_the_run_the_newest(whole, teacher):
    four, two, run = (ddim.load(whole / where) for where in ("stages/steps-4", "stages/steps-2", ""))
    assert four.tau() == (1000, 750, 500, 250, 0) and two.tau() == run.tau() == (1000, 500, 0)
    assert run.weights_hash == two.weights_hash != four.weights_hash
    student, about = run.checkpoint.student, run.checkpoint.meta["provenance"]
    assert student.teacher == about["teacher"]["sha256"] == teacher.weights_hash
    assert about["recipe"]["stages"] == [4, 2] and about["data_sha256"] and about["command"] == "ddim distil ..."
    assert not run.clips and "clip of x0 is folded in" in run.checkpoint.notes[0]
    names = sorted(p.name for p in (whole / "previews").iterdir())
    assert names == [f"stage-{i}-step-{n:08d}.png" for i, n in ((0, 4), (0, 6), (1, 2), (1, 6))]
    assert Image.open(whole / "previews" / names[0]).size[1] > 4 * 8  # two rows of the teacher's, two of the student's
    assert [p.name for p in (whole / "state").iterdir()] == ["recipe.json"] and list((whole / "tensorboard").iterdir())


def test_a_stop_saves_and_another_recipe_teacher_or_data_is_refused(teacher, images, tmp_path, capsys):
    run = tmp_path / "run"
    plan = plan_for(teacher, images, run)
    done = [p.done for p in distil_run(plan, CADENCE, lambda: True)]
    assert done == [1] and [p.name for p in checkpoints(run / "state/stage-0")] == ["step-00000001.pt"]
    other = ddim.load(save_tiny(tmp_path / "other", prediction="v", seed=5))
    for wrong, words in (
        (plan_for(teacher, images, run, lr=0.5), "lr was 0.001 and is now 0.5"),
        (plan_for(teacher, own_images(teacher, 14), run), "the images changed"),
        (plan_for(other, images, run), "teacher was"),
    ):
        with pytest.raises(ddim.Refused, match=words):
            next(distil_run(wrong, CADENCE, resume=True))
    with pytest.raises(ddim.Refused, match="give `resume` to go on with it"):
        next(distil_run(plan, CADENCE))
    at_work = distil_run(plan, CADENCE, resume=True)
    next(at_work)
    with pytest.raises(ddim.Refused, match="another process is at work"):
        next(distil_run(plan, CADENCE, resume=True))
    at_work.close()


def test_a_run_that_ended_before_its_recipe_was_written_is_begun_again(tmp_path):
    """On a full disk, or killed: run/state is made, and nothing is in it."""
    (tmp_path / "run/state").mkdir(parents=True)
    refuse_student(tmp_path / "run", resume=False)
    (tmp_path / "run/state/mine").touch()
    with pytest.raises(Refused, match="choose a new folder"):
        refuse_student(tmp_path / "run", resume=False)


def test_what_cannot_be_taught_is_refused(teacher, images, whole, tmp_path):
    for changes, words in (
        ({"stages": (3,)}, "3 steps do not divide the 8"),
        ({"stages": (4, 4)}, "4 steps do not divide the 4"),
        ({"stages": ()}, "at least 1 step"),
        ({"updates": 0}, "`updates` must be at least 1"),
        ({"method": "tuning"}, "made in one stage"),
        ({"loss": "eps"}, "`loss` v or x0"),
    ):
        with pytest.raises(ddim.Refused, match=words):
            plan_for(teacher, images, tmp_path / "run", **changes)
    large = save_tiny(tmp_path / "large", prediction="v", shape=(3, 8, 8))
    with pytest.raises(ddim.Refused, match=r"makes pictures of \(3, 8, 8\)"):
        plan_for(ddim.load(large), images, tmp_path / "run")
    with pytest.raises(ddim.Refused, match="is a student of its own 2 calls: give `start` 2"):
        plan_for(ddim.load(whole), images, tmp_path / "run")
    named = copy.copy(teacher)
    named.checkpoint = replace(teacher.checkpoint, labels=("cat", "dog", "owl"))
    with pytest.raises(ddim.Refused, match="the teacher 3, cat, dog, owl"):
        plan_for(named, images, tmp_path / "run")
    with pytest.raises(ddim.Refused, match="is a progressive student"):
        plan_for(ddim.load(whole), images, tmp_path / "run", method="tuning", stages=(1,))


def test_a_student_may_teach_the_next(whole, images, tmp_path):
    plan = plan_for(ddim.load(whole), images, tmp_path / "run", start=2, stages=(1,), solver="ddim", updates=2)
    list(distil_run(plan, CADENCE))
    assert ddim.load(tmp_path / "run").tau() == (1000, 0)


def test_a_student_may_begin_where_another_ended(whole, teacher, images, tmp_path):
    """At a rate of next to nothing it stays there; its folder says where; another student's weights are no resume."""
    first = ddim.load(whole / "stages/steps-4")
    plan = replace(plan_for(teacher, images, tmp_path / "run", stages=(4,), updates=1, lr=1e-9, ema=0.0), init=first)
    list(distil_run(plan, CADENCE))
    on = ddim.load(tmp_path / "run")
    weights = [m.checkpoint.network.state_dict() for m in (on, first, teacher)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    assert not all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*(w.values() for w in weights[1:]), strict=True))
    assert on.checkpoint.meta["provenance"]["init"]["sha256"] == first.weights_hash
    with pytest.raises(ddim.Refused, match="init was"):
        next(distil_run(replace(plan, init=ddim.load(whole)), CADENCE, resume=True))
    eps = ddim.load(save_tiny(tmp_path / "eps", prediction="eps"))
    with pytest.raises(ddim.Refused, match="predicts something else"):
        replace(plan, run=tmp_path / "other", init=eps)


def test_a_teacher_of_eps_has_a_student_of_v(tmp_path, images):
    eps = ddim.load(save_tiny(tmp_path / "eps", prediction="eps"))
    stages = StudentRecipe.halvings(4, 2, again=True)
    assert stages == (4, 2)
    list(distil_run(plan_for(eps, images, tmp_path / "run", start=4, stages=stages, updates=1), CADENCE))
    assert ddim.load(tmp_path / "run").prediction == "v" and ddim.load(tmp_path / "run/stages/steps-4").tau()[1] == 750


@pytest.mark.parametrize("method", ["tuning", "distillation"])
def test_consistency_students_go_on_bit_for_bit_too(teacher, images, tmp_path, method):
    how = {"method": method, "stages": (2,), "updates": 4, "start": 1}
    for name, kills in (("all", ()), ("parts", (3,))):
        plan = plan_for(teacher, images, tmp_path / name, **how)
        for kill in kills:
            walk = distil_run(plan, Cadence(4, 2, 4, 0))
            list(islice(walk, kill))
            walk.close()
        list(distil_run(plan, Cadence(4, 2, 4, 0), resume=bool(kills)))
    one, two = (ddim.load(tmp_path / name) for name in ("all", "parts"))
    assert one.weights_hash == two.weights_hash != teacher.weights_hash
    assert one.checkpoint.student.consistent and one.tau() == (1000, 500, 0) and one.sampler(steps=1).calls == 1


def test_the_teachers_own_pictures_are_made_once_part_by_part(teacher, tmp_path, monkeypatch):
    import ddim.jobs.distil.images as there

    monkeypatch.setattr(there, "PART", 4)
    told = []

    def stop(done, total):
        told.append(done)
        if done == 4 and len(told) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_images(teacher, 10, cache=tmp_path, progress=stop)
    (parts,) = tmp_path.glob("made-*-parts")
    (parts / f".00000004.npy.{HOST}-1-00000000.part").touch()  # a part half written by one that was killed
    monkeypatch.setattr(ddim.Sampler, "sample", counted := Counted(ddim.Sampler.sample))
    made = own_images(teacher, 10, cache=tmp_path, progress=stop)
    assert counted.seeds == list(range(4, 10)) and told == [4, 4, 8, 10]
    alone = teacher.sampler(steps=20, solver="dpm++2m", label="cycle", precision="auto").sample([7])
    assert np.array_equal(made.pixels[7], ddim.pixels.to_uint8(alone)[0]) and made.labels[7] == 7 % 3
    again = own_images(teacher, 10, cache=tmp_path)
    assert len(counted.seeds) == 7 and again.report.sha256 == made.report.sha256


@pytest.mark.parametrize("name", ["pixels.npy", "pixels.json"])
@pytest.mark.parametrize("how", ["flipped", "emptied", "gone"])
def test_pictures_that_are_not_as_they_were_written_are_made_again(teacher, tmp_path, monkeypatch, name, how):
    """Of a finished set all, of one that was interrupted the part that is damaged."""
    import ddim.jobs.distil.images as there

    monkeypatch.setattr(there, "PART", 4)
    first = own_images(teacher, 10, cache=tmp_path)
    (folder,) = tmp_path.glob("made-*[!s]")
    damage(folder / name, how)
    again = own_images(teacher, 10, cache=tmp_path)
    assert again.report.sha256 == first.report.sha256

    def stop(done, total):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        own_images(teacher, 11, cache=tmp_path, progress=stop)
    (parts,) = (p for p in tmp_path.glob("made-*-parts") if list(p.iterdir()))
    damage(parts / name.replace("pixels", "00000004"), how)
    monkeypatch.setattr(ddim.Sampler, "sample", counted := Counted(ddim.Sampler.sample))
    assert np.array_equal(own_images(teacher, 11, cache=tmp_path).pixels[:10], first.pixels[:10])
    assert counted.seeds == list(range(4, 11))


def damage(path, how):
    old = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "emptied" else old[:-3] + bytes([old[-3] ^ 1]) + old[-2:])


class Counted:
    """`Sampler.sample`, and the seeds it was asked for."""

    def __init__(self, sample):
        self.sample, self.seeds = sample, []

    def __get__(self, sampler, kind):
        def sample(seeds, **how):
            self.seeds += seeds
            return self.sample(sampler, seeds, **how)

        return sample


def test_a_good_start_is_measured(teacher):
    told = []
    steps = good_start(teacher, 2, tell=told.append)
    assert steps >= 4 and len(told) == (steps // 4).bit_length() and f"{steps} steps of the teacher are 0.0" in told[-1]


def distil(*words):
    with pytest.raises(SystemExit) as stop:
        main(["distil", *[str(w) for w in words]])
    return stop.value.code


def test_the_command_makes_one_and_goes_on_by_the_name_of_the_run_alone(teacher, tmp_path, capsys):
    run, more = tmp_path / "run", ["--precision", "fp32", "--device", "cpu", "--preview-every", 0, "--made", 12]
    words = [teacher.folder, "--to", 1, "--from", 2, "--updates", 2, "--batch-size", 4, "--out", run, *more]
    assert distil(*words) == 0
    assert "a student of 1 step; now: ddim sample" in capsys.readouterr().out
    assert ddim.load(run).tau() == (1000, 0)
    assert distil(*words) == 2 and "give --resume to go on with it" in capsys.readouterr().err
    before = (run / WEIGHTS).read_bytes()
    assert distil("--resume", run) == 0 and (run / WEIGHTS).read_bytes() == before
    assert distil("--resume", run, "--lr", 0.1) == 2 and "lr was 0.0003 and is now 0.1" in capsys.readouterr().err


def test_mistakes_are_one_line_with_code_2_and_write_nothing(teacher, tmp_path, capsys):
    run = tmp_path / "run"
    for options, words in (
        (["--to", 3], "--to 3 cannot be had by halving --from 16"),
        (["--to", 16], "cannot be had"),
        (["--from", "many"], "--from is a number of steps from 2, or auto; got 'many'"),
        (["--stages", "5"], "5 steps do not divide the 16"),
        (["--updates", 0], "--updates must be at least 1"),
        (["--checkpoint-every", 0], "--checkpoint-every must be at least 1"),
        (["--made", 1], "--made must be at least 2"),
        (["--resume"], "holds no run to resume"),
        (["--solver", "dpm++2m-sde", "--made", 12], "must be deterministic"),
    ):
        assert distil(teacher.folder, "--out", run, "--device", "cpu", *options) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ddim: ")]
        assert len(errors) == 1 and words in errors[0], errors
        assert not run.exists()
    assert distil(teacher.folder) == 2 and "say whose student, and where" in capsys.readouterr().err


def test_guidance_is_folded_in(teacher, images, tmp_path):
    plan = plan_for(teacher, images, tmp_path / "run", guidance=2.0, updates=1)
    list(distil_run(plan, CADENCE))
    assert ddim.load(tmp_path / "run").checkpoint.student.guidance == 2.0
    batch, x = plan.batches(0)(0), ddim.noise(range(4), (1, 8, 8))
    loss = plan.loss(0, plan.master(0))
    told = ddim.denoise.labels(batch.label)
    guided = teacher.sampler(label="cycle", guidance=2.0).denoise(x, 500, told)
    assert torch.allclose(loss.teacher(x, 500, told).x0, guided.x0)
    plain = plan.loss(1, plan.master(1)).teacher(x, 500, told)
    assert torch.allclose(plain.x0, plan.master(1).sampler(label="cycle").denoise(x, 500, told).x0)


def test_a_network_of_ones_own_is_taught_in_python(images, tmp_path):
    """Its program is in no file: every stage takes the weights into a copy of the teacher's module."""
    torch.manual_seed(0)
    own = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(4, 1, 3, padding=1))

    class Timeless(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = copy.deepcopy(own)

        def forward(self, x, t):
            return self.body(x)

    teacher = ddim.Model.from_network(Timeless(), ddim.Schedule.linear(1000), shape=(1, 8, 8), prediction="v")
    before = teacher.weights_hash
    list(distil_run(plan_for(teacher, images, tmp_path / "run", updates=2), CADENCE))
    student = ddim.load(tmp_path / "run", network=Timeless())
    assert student.tau() == (1000, 500, 0) and student.weights_hash != before == teacher.weights_hash
    assert student.student.teacher == before
