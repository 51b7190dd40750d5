"""The command line from the outside: what it writes, what it prints, and its exit codes."""

import json
import subprocess
import sys
from math import nan

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import save_tiny
from ddim.cli.argv import COMMANDS, main


def ddim(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


def mistake(capsys, *args):
    code, _, err = ddim(capsys, *args)
    assert code == 2, err
    assert err.count("\n") == 1 and err.startswith("ddim: ") and "Traceback" not in err, err
    return err


def test_help_of_every_command_explains_every_flag(capsys):
    code, out, _ = ddim(capsys, "--help")
    assert code == 0 and all(name in out for name in COMMANDS)
    for name in COMMANDS:
        code, out, _ = ddim(capsys, name, "--help")
        assert code == 0 and f"ddim {name}" in out
    assert ddim(capsys)[0] == 2 and ddim(capsys, "--version")[0] == 0


def test_sample_writes_images_grid_recipe_and_manifest(capsys, tiny_folder, tmp_path):
    out = tmp_path / "images"
    code, text, err = ddim(
        capsys, "sample", tiny_folder, "--seeds", "3,7-8", "--steps", 4, "--label", "cycle", "--npz", "--out", out
    )
    assert code == 0, err
    assert "3 images" in text and err == ""
    assert sorted(p.name for p in out.glob("0*.png")) == ["000003.png", "000007.png", "000008.png"]
    recipe = json.loads(Image.open(out / "000007.png").text["ddim"])
    assert recipe["tau"] == [1000, 667, 334, 1, 0] and recipe["seeds"] == 7 and recipe["label"] == "cycle"
    with np.load(out / "samples_3x8x8x1.npz") as arrays:
        assert arrays["arr_0"].shape == (3, 8, 8, 1) and arrays["arr_1"].tolist() == [0, 1, 2]
    assert ddim(capsys, "sample", "--verify", "--out", out)[0] == 0
    (out / "000007.png").write_bytes(b"")
    assert "changed" in mistake(capsys, "sample", "--verify", "--out", out)


def test_a_job_is_not_mixed_with_another_reading_of_the_same_weights(capsys, tmp_path):
    """The weights are the same file; what their output means is not."""
    folder, out = save_tiny(tmp_path / "m"), tmp_path / "images"
    args = ("sample", folder, "--n", 2, "--steps", 2, "--label", 0, "--out", out)
    assert ddim(capsys, *args)[0] == 0
    record = json.loads((folder / "ddim.json").read_text())
    assert ddim(capsys, *args)[0] == 0  # the same again: done already
    (folder / "ddim.json").write_text(json.dumps(record | {"data_range": [0.0, 1.0]}))
    assert "its reading is" in mistake(capsys, *args)


def test_processes_share_a_job(capsys, tiny_folder, tmp_path, monkeypatch):
    args = ("sample", tiny_folder, "--n", 5, "--steps", 2, "--batch-size", 2, "--eta", 1, "--out")
    assert ddim(capsys, *args, tmp_path / "one")[0] == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        assert ddim(capsys, *args, tmp_path / "two")[0] == 0
    for path in sorted((tmp_path / "one").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_the_batch_size_can_be_found_and_is_kept(capsys, tiny_folder, tmp_path):
    args = (
        "sample",
        tiny_folder,
        "--n",
        5,
        "--steps",
        2,
        "--label",
        1,
        "--batch-size",
        "auto",
        "--out",
        tmp_path / "o",
    )
    code, text, err = ddim(capsys, *args)
    assert code == 0, err
    assert "batch size 4" in text and json.loads((tmp_path / "o" / "recipe.json").read_text())["batch"] == 4
    (tmp_path / "o" / "000003.png").unlink()
    code, text, err = ddim(capsys, *args)
    assert code == 0 and "batch size" not in text, err
    assert "at least 1 or auto" in mistake(
        capsys, "sample", tiny_folder, "--batch-size", 0, "--n", 1, "--out", tmp_path / "p"
    )


def test_options_from_a_file_and_argv_wins(capsys, tiny_folder, tmp_path):
    (tmp_path / "run.yaml").write_text("steps: 2\nn: 2\neta: 0.5\nclip: true\n")
    code, _, err = ddim(
        capsys, "sample", tiny_folder, "--config", tmp_path / "run.yaml", "--n", 1, "--out", tmp_path / "o"
    )
    assert code == 0, err
    recipe = json.loads((tmp_path / "o" / "recipe.json").read_text())
    assert (
        recipe["tau"] == [1000, 1, 0] and recipe["eta"] == 0.5 and recipe["clip"] is True and recipe["seeds"] == "0-0"
    )
    (tmp_path / "bad.yaml").write_text("stepz: 2\n")
    assert "stepz" in mistake(capsys, "sample", tiny_folder, "--config", tmp_path / "bad.yaml", "--out", tmp_path / "p")


def test_positional_arguments_of_the_file_give_way_to_those_of_argv(capsys, tmp_path):
    from ddim.cli.commands.decode import Command as Decode
    from ddim.cli.commands.sample import Command as Sample
    from ddim.cli.parse import command_from

    path = tmp_path / "run.yaml"
    path.write_text("model: mine\nsteps: 3\n")
    out = ["--out", str(tmp_path / "o")]
    for config in (["--config", str(path)], [f"--config={path}"]):
        assert command_from("sample", Sample, [*config, *out]).model == "mine"
        given = command_from("sample", Sample, ["other", *config, *out])
        assert given.model == "other" and given.steps == 3
    path.write_text("latents: z.safetensors\nmodel: mine\n")
    both = command_from("decode", Decode, [f"--config={path}", *out])
    assert both.model == "mine" and str(both.latents) == "z.safetensors"
    assert "needs a YAML file" in mistake(capsys, "sample", "--config=")


def test_schedule_shows_the_walk(capsys, tiny_folder):
    code, out, _ = ddim(capsys, "schedule", tiny_folder, "--steps", 4, "--eta", 1)
    assert code == 0
    rows = [line.split() for line in out.splitlines()[1:5]]
    assert [(r[1], r[2]) for r in rows] == [("1000", "667"), ("667", "334"), ("334", "1"), ("1", "0")]
    assert rows[-1][6] == "0" and float(rows[0][3]) == pytest.approx(4.0358e-5, rel=1e-4)


def test_the_schedule_of_a_student_is_its_own(capsys):
    out = ddim(capsys, "schedule", "mnist-4")[1]
    assert "4 steps of T = 1000, its own times as a student" in out
    assert [line.split()[1:3] for line in out.splitlines()[1:5]] == [
        ["1000", "750"], ["750", "500"], ["500", "250"], ["250", "0"]
    ]  # fmt: skip


def test_demo_makes_its_picture(capsys, tiny_folder, tmp_path):
    code, out, err = ddim(capsys, "demo", tiny_folder, "--out", tmp_path)
    assert code == 0, err
    assert out.splitlines()[-1] == str(tmp_path / "demo.png")
    picture = Image.open(tmp_path / "demo.png")
    assert picture.width > 10 * 56 and picture.height > 5 * 56
    assert "20-step DDIM is" in out and "than 1000-step DDPM" in out


def test_demo_shows_every_bundled_model_one_under_another(capsys, tiny_folder, tmp_path, monkeypatch):
    from ddim.cli.commands import demo
    from ddim.model import bundled_names

    shown = {*demo.BUNDLED, *(walk.student for walks in demo.BUNDLED.values() for walk in walks if walk.student)}
    assert sorted(shown) == sorted(bundled_names()) == ["cifar10", "mnist", "mnist-1", "mnist-4"]
    alone = demo.Command(model=str(tiny_folder), out=tmp_path / "one")
    monkeypatch.setattr(demo, "THOUSAND", demo.FEW)
    alone.run()
    capsys.readouterr()
    monkeypatch.setattr(demo, "BUNDLED", dict.fromkeys((str(tiny_folder), save_tiny(tmp_path / "m")), demo.FEW))
    code, out, err = ddim(capsys, "demo", "--out", tmp_path / "two")
    assert code == 0, err
    one, two = (Image.open(tmp_path / name / "demo.png") for name in ("one", "two"))
    assert two.height == 2 * one.height + 12 and out.count("10 images from the same 10 latents") == 2


@pytest.mark.parametrize("hindered", [True, False])
def test_demo_takes_one_thread_where_several_are_slower(monkeypatch, capsys, hindered):
    """A call that takes ten times as long with several threads, one that takes half; afterwards all is as before."""
    from ddim.cli import threads as ours

    threads, clock = [2], [0.0]

    def call():
        clock[0] += (10.0 if hindered else 0.5) if threads[-1] > 1 else 1.0

    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(ours.time, "perf_counter", lambda: clock[0])
    with pytest.raises(KeyError), ours.unhindered(call):
        assert threads[-1] == (1 if hindered else 2)
        raise KeyError
    assert threads[-1] == 2 and ("one thread is faster here than 2" in capsys.readouterr().err) == hindered


def test_demo_guides_the_row_that_says_so(capsys, tiny_folder, tmp_path, monkeypatch):
    from ddim.cli.commands import demo

    monkeypatch.setattr(demo, "BUNDLED", {str(tiny_folder): (demo.GUIDED, *demo.FEW)})
    code, out, err = ddim(capsys, "demo", "--out", tmp_path)
    assert code == 0, err
    rows = [line.split()[:-1] for line in out.splitlines()]
    assert ["guided", "DDIM", "0", "20", "40"] in rows and ["DDIM", "0", "20", "20"] in rows  # two calls a step, one


def test_demo_names_the_steps_it_ran(capsys, tmp_path):
    from ddim import Schedule

    code, out, err = ddim(capsys, "demo", save_tiny(tmp_path / "m", schedule=Schedule.linear(10)), "--out", tmp_path)
    assert code == 0, err
    assert "10-step DDIM is" in out and "than 10-step DDPM" in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--steps", "0"], "steps = 0"),
        (["--steps", "1001"], "T = 1000, got steps = 1001"),
        (["--steps", "ten"], "steps"),
        (["--eta", "-1"], "-1"),
        (["--eta", "9"], "sqrt"),
        (["--eta", "0.5", "--solver", "heun"], "eta"),
        (["--sigma-hat", "--eta", "0.5"], "--sigma-hat"),
        (["--seeds", "5-2"], "backwards"),
        (["--seeds", "1,1"], "twice"),
        (["--seeds", "abc"], "abc"),
        (["--seeds", "1-3", "--n", "2"], "not both"),
        (["--n", "0"], "at least 1"),
        (["--label", "9"], "label 9"),
        (["--label", "x"], "cycle"),
        (["--guidance", "2"], "needs a label"),
        (["--tau", "500,600,0"], "fall strictly"),
        (["--tau", "a,b"], "a,b"),
        (["--tau", "500,0", "--spacing", "trailing"], "give one of them"),
        (["--spacing", "sideways"], "sideways"),
        (["--spacing", "openai", "--steps", "37"], "37"),
        (["--solver", "magic"], "magic"),
        (["--device", "warp"], "warp"),
        (["--batch-size", "0"], "batch-size"),
        (["--no-such-flag"], "no-such-flag"),
    ],
)
def test_a_users_mistake_is_one_line_and_leaves_nothing(capsys, tiny_folder, tmp_path, args, says):
    out = tmp_path / "out"
    assert says in mistake(capsys, "sample", tiny_folder, "--out", out, *args)
    assert not out.exists()


@pytest.mark.parametrize("args", [["sample", "--steps", "x"], ["sample", "--no-such-flag"], ["decode"]])
def test_the_parsers_boxes_leave_neither_titles_nor_pointers(capsys, args):
    said = mistake(capsys, *args).strip()
    assert said.endswith(f"; see ddim {args[0]} --help") and said.count("--help") == 1 and "helptext" not in said
    assert "Value error" not in said and said.count("Unrecognized") < 2


def test_existing_output_is_refused_and_kept(capsys, tiny_folder, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    assert "new or empty folder" in mistake(capsys, "sample", tiny_folder, "--n", 1, "--steps", 1, "--out", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_what_is_no_model(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for source in ("/nowhere", tmp_path, tmp_path / "notes.txt"):
        mistake(capsys, "sample", source, "--out", tmp_path / "o")
    assert "there is no command 'smaple'" in mistake(capsys, "smaple")


def test_exit_codes_reach_the_shell(tmp_path):
    done = subprocess.run([sys.executable, "-m", "ddim", "sample", "/nowhere", "--out", str(tmp_path / "x")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 2 and done.stderr.startswith("ddim: ") and done.stdout == ""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--guidance", "nan", "--label", "1"], "weight must be finite, got nan"),
        (["--guidance", "inf", "--label", "1"], "weight must be finite, got inf"),
        (["--n", "99999999999"], "--count is at most 10000000"),
        (["--seeds", "0-99999999999"], "more than 10000000 seeds"),
    ],
)
def test_what_no_job_can_hold_is_refused(capsys, tiny_folder, tmp_path, args, says):
    assert says in mistake(capsys, "sample", tiny_folder, "--steps", 2, "--out", tmp_path / "out", *args)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("environ", [{"RANK": "1"}, {"WORLD_SIZE": "2"}, {"RANK": "2", "WORLD_SIZE": "2"}])
def test_a_process_that_cannot_know_its_share_is_refused(capsys, tiny_folder, tmp_path, monkeypatch, environ):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    said = mistake(capsys, "sample", tiny_folder, "--n", 2, "--steps", 2, "--out", tmp_path / "out")
    assert all(name in said and value in said for name, value in environ.items())
    assert not (tmp_path / "out").exists()


def test_images_that_are_not_finite_are_no_success(capsys, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("ddim.model.Sampler.sample", lambda self, seeds, **_: torch.full((len(seeds), 1, 8, 8), nan))
    said = mistake(capsys, "sample", tiny_folder, "--seeds", "7-8", "--steps", 2, "--out", tmp_path / "out")
    assert "seed 7 is not finite" in said and "--precision" in said
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["recipe.json"]


def test_a_stale_manifest_proves_nothing(capsys, tiny_folder, tmp_path, monkeypatch):
    args = ("sample", tiny_folder, "--n", 2, "--steps", 2, "--npz", "--out", tmp_path)
    assert ddim(capsys, *args)[0] == 0
    (tmp_path / "000001.png").unlink()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    code, text, err = ddim(capsys, *args)  # nobody else is at work, so it makes what rank 1 would have made
    assert code == 0 and "2 images in" in text and (tmp_path / "000001.png").exists(), err


def test_each_png_names_its_class(capsys, tiny_folder, tmp_path):
    code, _, err = ddim(
        capsys, "sample", tiny_folder, "--seeds", "4,8", "--steps", 2, "--label", "2,0", "--out", tmp_path
    )
    assert code == 0, err
    texts = [json.loads(Image.open(tmp_path / name).text["ddim"]) for name in ("000004.png", "000008.png")]
    assert [(t["seeds"], t["label"], t["class"]) for t in texts] == [(4, "2,0", 2), (8, "2,0", 0)]
    assert "class" not in json.loads((tmp_path / "recipe.json").read_text())


def test_a_model_that_no_png_can_hold_is_refused_before_the_folder_is_made(capsys, tmp_path):
    folder = save_tiny(tmp_path / "m", shape=(4, 8, 8))
    said = mistake(capsys, "sample", folder, "--n", 1, "--steps", 2, "--out", tmp_path / "out")
    assert "this model makes 4" in said and "Model.sample" in said
    assert not (tmp_path / "out").exists()
