"""Tomorrow: `ddim train --resume RUN` knows what the run was begun with; `ddim info RUN` says how far it is."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from ddim.cli import main, training
from ddim.cli.show import duration
from ddim.cli.watch import Watch
from ddim.jobs import Clock, Progress
from ddim.jobs.train.estimate import multiplications


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def photos(tmp_path):
    for i in range(6):
        path = tmp_path / "photos" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(path)
    return tmp_path / "photos"


def ddim(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    return stop.value.code


BEGUN = ("--preset", "digits", "--batch-size", 4, "--lr", "1e-3", "--warmup", 2, "--prediction", "eps", "--flip",
         "--preview-every", 0, "--log-every", 1, "--device", "cpu", "--precision", "fp32")  # fmt: skip


def weights(run, step):
    return torch.load(run / f"state/step-{step:08d}.pt", weights_only=True)["network"]


def test_the_run_alone_goes_on_as_it_was_begun(photos, tmp_path, monkeypatch):
    """The same weights as one that was never stopped; from another folder too."""
    monkeypatch.chdir(tmp_path)
    assert ddim("train", "photos", "--out", "whole", *BEGUN, "--max-steps", 6) == 0
    assert ddim("train", "photos", "--out", "run", *BEGUN, "--max-steps", 3) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ddim("train", "--resume", "../run", "--max-steps", 6) == 0
    one, two = weights(tmp_path / "whole", 6), weights(tmp_path / "run", 6)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert ddim("train", "--resume", tmp_path / "run") == 0  # --max-steps is what was asked last


def test_what_may_change_may_and_the_rest_is_refused_by_name(photos, tmp_path, capsys):
    run = tmp_path / "run"
    assert ddim("train", photos, "--out", run, *BEGUN, "--max-steps", 1) == 0
    for options in (
        ("--accumulation", 2), ("--preview-precision", "bf16", "--preview-every", 1), ("--device", "auto"),
        ("--checkpoint-every", 1, "--log-every", 2),
    ):  # fmt: skip
        assert ddim("train", "--resume", run, "--max-steps", 2, *options) == 0, options
    assert json.loads((run / "state/recipe.json").read_text())["accumulation"] == 2
    for options, words in (
        (("--batch-size", 8), "batch_size was 4 and is now 8"),
        (("--batch-size", 64), "batch_size was 4 and is now 64"),  # the default, but given
        (("--prediction", "v"), "prediction was eps and is now v"),
        (("--preset", "mnist"), "preset was digits and is now mnist"),
        (("--grad-clip", 3), "clip was 1.0 and is now 3.0"),
    ):
        assert ddim("train", "--resume", run, "--max-steps", 3, *options) == 2, options
        assert words in capsys.readouterr().err.splitlines()[-1]
    assert ddim("train", "--resume") == 2 and "which run" in capsys.readouterr().err
    assert ddim("train", "--resume", tmp_path / "none") == 2 and "holds no run to resume" in capsys.readouterr().err
    assert ddim("train") == 2 and "ddim train DATA --out RUN" in capsys.readouterr().err


def test_one_new_photo_is_said_and_the_way_that_is_named_works(photos, tmp_path, capsys):
    run = tmp_path / "run"
    assert ddim("train", photos, "--out", run, *BEGUN, "--max-steps", 1) == 0
    Image.new("RGB", (8, 8), (1, 2, 3)).save(photos / "new.png")
    capsys.readouterr()
    assert ddim("train", "--resume", run, "--max-steps", 2) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the images changed" in said and f"start from it with --init {run} and a new --out" in said
    assert ddim("train", photos, "--out", tmp_path / "next", "--init", run, "--max-steps", 1, "--batch-size", 4) == 0
    about = json.loads((tmp_path / "next/ddim.json").read_text())
    assert about["prediction"] == "eps" and about["provenance"]["preset"] == "digits"  # those of RUN, not asked for


def aged(run):
    """As 0.1 stored it: no words and no place in the recipe, --clip for the gradient, clipping off in the model."""
    path = run / "state/recipe.json"
    recipe = {k: v for k, v in json.loads(path.read_text()).items() if k not in ("command", "source")}
    path.write_text(json.dumps(recipe))
    about = json.loads((run / "ddim.json").read_text())
    command = about["provenance"]["command"].replace("--grad-clip", "--clip").replace("--prediction eps ", "")
    about |= {"clips": False, "provenance": about["provenance"] | {"command": command}}
    (run / "ddim.json").write_text(json.dumps(about))


def test_a_run_of_an_older_version_goes_on_under_its_own_recipe(photos, tmp_path, capsys):
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = (*BEGUN, "--grad-clip", "0.01")
    assert ddim("train", photos, "--out", whole, *options, "--max-steps", 4) == 0
    assert ddim("train", photos, "--out", run, *options, "--max-steps", 2) == 0
    aged(run)
    assert ddim("info", run) == 0 and f"data          {photos}" in capsys.readouterr().out
    assert ddim("train", "--resume", run, "--max-steps", 3) == 0
    assert ddim("train", photos, "--out", run, "--resume", "--max-steps", 4) == 0
    one, two = weights(whole, 4), weights(run, 4)
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert json.loads((run / "ddim.json").read_text())["prediction"] == "eps"
    (run / "ddim.json").unlink()
    aged_recipe = json.loads((run / "state/recipe.json").read_text())
    (run / "state/recipe.json").write_text(
        json.dumps({k: v for k, v in aged_recipe.items() if k not in ("command", "source")})
    )
    capsys.readouterr()
    assert ddim("train", "--resume", run) == 2
    assert f"ddim train DATA --out {run} --resume" in capsys.readouterr().err


def test_the_old_spelling_of_the_gradients_norm_still_counts(photos, tmp_path):
    (tmp_path / "o.yaml").write_text("clip: 0.25\n")
    for name, words in (("a", ("--clip", "0.25")), ("b", ("--config", tmp_path / "o.yaml"))):
        run = tmp_path / name
        assert ddim("train", photos, "--out", run, *BEGUN, "--max-steps", 1, *words) == 0
        assert json.loads((run / "state/recipe.json").read_text())["clip"] == 0.25


def test_info_says_how_far_a_run_is(photos, tmp_path, capsys):
    run = tmp_path / "run"
    assert ddim("train", photos, "--out", run, *BEGUN, "--max-steps", 5) == 0
    lines = [json.loads(x) for x in (run / "log.jsonl").read_text().splitlines()]
    (run / "log.jsonl").write_text("".join(json.dumps(x | {"images_per_second": 2.0}) + "\n" for x in lines))
    capsys.readouterr()
    assert ddim("info", run) == 0
    said = capsys.readouterr().out
    for words in (
        "5 of 5",
        "20\n",
        str(photos),
        "ddim train",
        f"{lines[-1]['smooth_loss']:.4g} at step 5",
        "none: all",
    ):
        assert words in said, words
    recipe = json.loads((run / "state/recipe.json").read_text())
    command = recipe["command"].replace("--max-steps 5", "--max-steps 305")
    (run / "state/recipe.json").write_text(json.dumps(recipe | {"command": command}))
    assert ddim("info", run) == 0
    said = capsys.readouterr().out
    assert "5 of 305" in said and "about 10 min at 2 images/s" in said  # 300 steps of 4 images
    for path in (run / "state").glob("*.pt"):
        path.unlink()
    assert ddim("info", run) == 0 and "steps done    0 of 305" in capsys.readouterr().out


# -- what one sees -----------------------------------------------------------------------------------------


class Hours:
    """A clock that goes on by so many seconds at each look of a step."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def watched(plan, seconds, steps, max_steps):
    clock = Hours()
    watch = Watch(4, 0, max_steps, main=True, advice=lambda left: training._too_much(plan, left), now=clock)
    with watch:
        for step in range(1, steps + 1):
            clock.time += seconds
            watch.step(Progress(step, 0.5, 0.25, 1e-3, 1.0, 10.0))


@pytest.fixture
def plan(photos, tmp_path):
    from ddim.data import open_images
    from ddim.jobs import Plan, Recipe

    images = open_images(photos, size=(32, 32))
    return Plan(tmp_path / "run", images, "cifar10", Recipe(batch_size=4), False, "ddim train")


def test_without_a_terminal_a_line_a_minute_is_told(plan, capsys):
    watched(plan, 1.0, 185, 200)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in said] == [f"step {n} of 200" for n in (60, 120, 180)]
    assert said[-1] == "step 180 of 200: loss 0.2500, 4 images/s, 20 s left"


def test_the_whole_run_is_estimated_after_its_first_steps(plan, capsys):
    watched(plan, 1.0, 20, 2000)
    (said,) = capsys.readouterr().err.splitlines()
    assert said == "1994 steps to go take about 33 min on this machine (4 images/s, 33 min left)"


def test_a_network_that_is_too_much_for_this_machine_is_warned_of_with_one_that_fits(plan, capsys):
    """100 s a step, 10000 steps: 12 days. What is named has few enough multiplications for a day."""
    watched(plan, 100.0, 20, 10000)
    warning = next(line for line in capsys.readouterr().err.splitlines() if "warning" in line)
    assert "warning: preset cifar10 is too much" in warning and "--max-steps 864 are done in a day" in warning
    named = warning.split("--preset ")[1].split()[0]
    own, other = (multiplications(name, (3, 32, 32)) for name in ("cifar10", named))
    assert 10000 * 100 * other / own < 86400


def test_a_clock_says_nothing_before_it_can():
    now = Hours()
    clock = Clock(100, now)
    for step in range(1, 4):
        now.time += 50.0 if step == 1 else 0.1  # the first step loads kernels
        clock.tick(step)
        assert clock.seconds is None and clock.left is None
    for step in range(4, 12):
        now.time += 0.1
        clock.tick(step)
    assert clock.seconds == pytest.approx(0.1) and clock.left == pytest.approx(8.9)


def test_durations_are_in_words():
    said = [duration(s) for s in (3, 99, 720, 12000, 86400 * 9)]
    assert said == ["3 s", "99 s", "12 min", "3 h 20 min", "9 days"]


def test_out_of_memory_names_parts_that_a_resume_takes(photos, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    assert ddim("train", photos, "--out", run, *BEGUN, "--max-steps", 1) == 0
    from ddim.jobs.train import loop

    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_accumulate", full)
        assert ddim("train", "--resume", run, "--max-steps", 2) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    advice = said.split("split it: ")[1].split(" gives")[0].split()
    assert advice == ["--accumulation", "2"]
    assert ddim("train", "--resume", run, "--max-steps", 2, *advice) == 0
    assert (run / "state/step-00000002.pt").exists()
