import json
import math
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from ddim.cli import main
from ddim.files import HOST


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def faces(tmp_path):
    """Twelve pictures of two classes: a bright left half, a bright right half."""
    for i in range(12):
        pixels = np.full((8, 8), 20 + i, np.uint8)
        pixels[:, slice(0, 4) if i % 2 else slice(4, 8)] = 230 - i
        path = tmp_path / "faces" / ("left" if i % 2 else "right") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "faces"


def ddim(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    return stop.value.code


def test_a_run_is_a_model_folder_with_its_state_beside_it(faces, tmp_path, capsys):
    run = tmp_path / "run"
    code = ddim(
        "train", faces, "--out", run, "--preset", "digits", "--max-steps", 4, "--batch-size", 4,
        "--checkpoint-every", 1, "--preview-every", 2, "--log-every", 2, "--ema", "0.5",
    )  # fmt: skip
    captured = capsys.readouterr()
    assert code == 0 and "4 steps" in captured.out
    assert "12 images" in captured.err and "2 classes: left (6), right (6)" in captured.err
    assert [p.name for p in sorted((run / "state").glob("*.pt"))] == ["step-00000003.pt", "step-00000004.pt"]
    assert [p.name for p in sorted((run / "previews").iterdir())] == ["step-00000002.png", "step-00000004.png"]
    assert Image.open(run / "previews/step-00000004.png").size == (2 + 2 * 90, 24 + 4 * 90)  # 2 classes, 4 rows
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [2, 4]
    assert list((run / "tensorboard").iterdir())
    about = json.loads((run / "ddim.json").read_text())
    assert about["labels"] == ["left", "right"] and about["num_classes"] == 2 and about["null_label"] == 2
    assert about["provenance"]["steps"] == 4 and about["provenance"]["images"] == 12
    assert not list(run.rglob("*.part"))


def test_the_run_holds_the_averaged_weights_and_diffusers_loads_it(faces, tmp_path):
    from diffusers import DDIMPipeline

    run = tmp_path / "run"
    assert (
        ddim(
            "train",
            faces,
            "--out",
            run,
            "--max-steps",
            3,
            "--batch-size",
            4,
            "--labels",
            "ignore",
            "--preview-every",
            0,
        )
        == 0
    )
    pipeline = DDIMPipeline.from_pretrained(run)
    state = torch.load(run / "state/step-00000003.pt", weights_only=True)
    weights = pipeline.unet.state_dict()
    assert all(torch.equal(weights[n.removeprefix("unet.")], v) for n, v in state["ema"].items())
    assert any(not torch.equal(state["ema"][n], state["network"][n]) for n in state["ema"])
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 1)
    assert pipeline.scheduler.config.num_train_timesteps == 1000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-steps", "0"], "--max-steps must be at least 1, got 0"),
        (["--batch-size", "0"], "batch_size must be a whole number from 1"),
        (["--lr", "-1"], "lr must be a number above 0"),
        (["--preset", "huge"], "unknown --preset 'huge'"),
        (["--preset", "mnist", "--size", "9"], "multiples of 4, got 9x9"),
        (["--size", "axb"], "--size is written like"),
        (["--size", "0"], "at least 1x1"),
        (["--precision", "fp16", "--device", "cpu"], "fp16 training needs an accelerator"),
        (["--checkpoint-every", "0"], "--checkpoint-every must be at least 1"),
        (["--resume"], "holds no run to resume"),
        (["--zero-terminal-snr", "--prediction", "eps"], "use prediction v or x0"),
        (["--channels", "4"], "--channels"),
        (["--no-such-flag"], "no-such-flag"),
    ],
)
def test_mistakes_are_one_line_with_code_2_and_write_nothing(faces, tmp_path, capsys, options, words):
    assert ddim("train", faces, "--out", tmp_path / "run", *options) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ddim: ")]
    assert len(errors) == 1 and words in errors[0]
    assert not (tmp_path / "run").exists()


def test_labels_need_classes(tmp_path, capsys):
    (tmp_path / "flat").mkdir()
    for i in range(2):
        Image.new("L", (8, 8), i).save(tmp_path / "flat" / f"{i}.png")
    assert ddim("train", tmp_path / "flat", "--out", tmp_path / "run", "--labels", "use") == 2
    assert "has no classes" in capsys.readouterr().err


def test_an_existing_run_is_never_touched_without_resume(faces, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("keep")
    assert ddim("train", faces, "--out", run, "--max-steps", 1) == 2
    assert "exists" in capsys.readouterr().err and [p.name for p in run.iterdir()] == ["mine.txt"]


def test_a_place_that_cannot_be_written_is_refused_before_the_data_is_read(faces, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("ddim.cli.training.open_images", None)
    assert ddim("train", faces, "--out", tmp_path / "file" / "run") == 2
    assert "file" in capsys.readouterr().err


def poison(monkeypatch, diverges):
    """Makes the loss NaN where `diverges(state)` says so."""
    from ddim.jobs import Denoising

    real = Denoising.__call__

    def poisoned(loss, state, *rest):
        return real(loss, state, *rest) * (math.nan if diverges(state) else 1.0)

    monkeypatch.setattr(Denoising, "__call__", poisoned)


def test_a_run_that_diverges_goes_back_once_and_resumes_bit_for_bit(faces, tmp_path, capsys, monkeypatch):
    poison(monkeypatch, lambda state: state.step == 5 and state.retreat is None)
    common = ["--batch-size", 2, "--checkpoint-every", 2, "--log-every", 1, "--preview-every", 0, "--precision", "fp32"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert ddim("train", faces, "--out", whole, "--max-steps", 9, "--lr", 0.01, "--warmup", 0, *common) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if "goes back" in line]
    assert len(told) == 1 and "the loss is nan at step 6" in told[0] and "back to step 4" in told[0]
    log = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4, 4, 5, 6, 7, 8, 9]
    assert log[4] == {"step": 4, "retreat_from": 5, "lr_factor": 0.1}
    assert [round(line["lr"], 9) for line in log if "lr" in line] == [0.01] * 4 + [0.001] * 5
    about = json.loads((whole / "ddim.json").read_text())["provenance"]
    assert about["retreat"] == {"since": 5, "to": 4, "factor": 0.1}
    assert ddim("train", faces, "--out", parts, "--max-steps", 7, "--lr", 0.01, "--warmup", 0, *common) == 0
    assert ddim("train", "--resume", parts, "--max-steps", 9) == 0
    a, b = (load_weights(run) for run in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_before_its_first_checkpoint_a_run_goes_back_to_its_beginning(faces, tmp_path, capsys, monkeypatch):
    """Then it is a run at a tenth of the rate, bit for bit."""
    common = ["--max-steps", 4, "--batch-size", 2, "--warmup", 0, "--preview-every", 0, "--precision", "fp32"]
    assert ddim("train", faces, "--out", tmp_path / "slow", "--lr", 0.001, *common) == 0
    poison(monkeypatch, lambda state: state.step == 2 and state.retreat is None)
    assert ddim("train", faces, "--out", tmp_path / "back", "--lr", 0.01, *common) == 0
    assert "back to step 0" in capsys.readouterr().err
    a, b = (load_weights(tmp_path / run) for run in ("slow", "back"))
    assert all(torch.allclose(a[name], b[name], rtol=0, atol=1e-7) for name in a)


def load_weights(run):
    """The averaged weights of a run."""
    from safetensors.torch import load_file

    return load_file(run / "unet" / "diffusion_pytorch_model.safetensors")


def test_divergence_twice_names_the_last_good_checkpoint_and_fails(faces, tmp_path, capsys, monkeypatch):
    poison(monkeypatch, lambda state: state.step == 5)
    run = tmp_path / "run"
    code = ddim(
        "train", faces, "--out", run, "--max-steps", 9, "--batch-size", 2, "--checkpoint-every", 2, "--preview-every", 0
    )
    error = capsys.readouterr().err.splitlines()[-1]
    assert code == 2 and "the loss is nan at step 6" in error and "step-00000004.pt" in error and "lower --lr" in error


@pytest.mark.skipif(sys.platform == "win32", reason="gloo over torchrun is tested on POSIX")
def test_two_processes_train_as_one(faces, tmp_path):
    """torchrun on two CPU processes: the same losses as one process, up to rounding."""
    options = ["--max-steps", "3", "--batch-size", "4", "--preview-every", "0", "--log-every", "1", "--device", "cpu"]
    assert ddim("train", faces, "--out", tmp_path / "one", *options) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = ["-m", "ddim", "train", str(faces), "--out", str(tmp_path / "two"), *options]
    done = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (
        [json.loads(x)["loss"] for x in (tmp_path / d / "log.jsonl").read_text().splitlines()] for d in ("one", "two")
    )
    assert len(two) == 3 and two == pytest.approx(one, rel=1e-3)


def test_the_stored_command_makes_the_run_again_and_yaml_options_count(faces, tmp_path):
    run, options = tmp_path / "run", tmp_path / "run.yaml"
    options.write_text("flip: true\nmax-steps: 2\nbatch_size: 2\npreview_every: 0\nresume: false\n")
    assert ddim("train", faces, "--out", run, "--config", options, "--lr", "1e-3") == 0
    command = json.loads((run / "ddim.json").read_text())["provenance"]["command"]
    assert command == f"ddim train {faces} --out {run} --max-steps 2 --batch-size 2 --lr 0.001 --flip --preview-every 0"
    assert ddim(*command.replace(str(run), str(tmp_path / "again")).split()[1:]) == 0
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (run / weights).read_bytes() == (tmp_path / "again" / weights).read_bytes()


TRAIN = ("--preset", "digits", "--batch-size", 4, "--preview-every", 0, "--ema", "0.5")


def test_fine_tuning_begins_with_the_other_models_weights(faces, tmp_path):
    """At a learning rate of nothing the new run is the old model, bit for bit; and it says where it came from."""
    from ddim.checkpoints import load_folder

    first, second = tmp_path / "first", tmp_path / "second"
    assert ddim("train", faces, "--out", first, *TRAIN, "--max-steps", 3, "--lr", "1e-3") == 0
    begun = ("train", faces, "--out", second, *TRAIN, "--seed", 5, "--init", first, "--lr", "1e-30", "--warmup", 0)
    assert ddim(*begun, "--max-steps", 2) == 0
    old, new = load_folder(first), load_folder(second)
    weights = dict(new.network.named_parameters())
    for name, weight in old.network.named_parameters():
        assert torch.equal(weight, weights[name]), name
    ancestor = new.meta["provenance"]["init"]
    assert ancestor["sha256"] == old.sha256 and ancestor["provenance"]["steps"] == 3
    left = second / f".second.{HOST}-{2**22 + 1}-0123abcd.part"  # by a killed export; no process has so high a number
    left.mkdir()
    assert ddim(*begun, "--max-steps", 3, "--resume") == 0
    assert not left.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--prediction", "eps"), "give --prediction v"),
        (("--schedule", "linear"), "another noise schedule"),
        (("--preset", "mnist"), "another network"),
        (("--labels", "ignore"), "another network"),
    ],
)
def test_fine_tuning_another_kind_of_model_is_refused(faces, tmp_path, capsys, options, says):
    assert ddim("train", faces, "--out", tmp_path / "first", *TRAIN, "--max-steps", 1) == 0
    capsys.readouterr()
    other = ("train", faces, "--out", tmp_path / "second", *TRAIN, "--max-steps", 1, "--init", tmp_path / "first")
    assert ddim(*other, *options) == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "second").exists()


def test_a_fine_tuned_run_goes_on_without_the_model_it_began_from(faces, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert ddim("train", faces, "--out", first, *TRAIN, "--max-steps", 1) == 0
    begun = ("train", faces, "--out", second, *TRAIN, "--max-steps")
    assert ddim(*begun, 1, "--init", first) == 0
    provenance = json.loads((second / "ddim.json").read_text())["provenance"]
    shutil.rmtree(first)
    assert ddim(*begun, 2, "--init", first, "--resume") == 0
    assert ddim(*begun, 3, "--resume") == 0
    after = json.loads((second / "ddim.json").read_text())["provenance"]
    assert after["steps"] == 3 and after["init"] == provenance["init"] and f"--init {first}" in after["command"]


def test_a_model_whose_checkpoints_are_lost_is_not_begun_again_in_its_place(faces, tmp_path, capsys):
    run = tmp_path / "run"
    begun = ("train", faces, "--out", run, *TRAIN, "--max-steps")
    assert ddim(*begun, 3) == 0
    for checkpoint in (run / "state").glob("*.pt"):
        checkpoint.unlink()
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    capsys.readouterr()
    for words in ((*begun, 5, "--resume"), ("train", "--resume", run, "--max-steps", 5)):
        assert ddim(*words) == 2
        assert "no checkpoint (no state/step-*.pt)" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    assert ddim("train", faces, "--out", tmp_path / "next", *TRAIN, "--max-steps", 1, "--init", run) == 0


def test_a_run_inside_its_own_data_is_refused(faces, tmp_path, capsys):
    (tmp_path / "link").symlink_to(faces)
    for out in (faces / "run", faces, tmp_path / "link" / "left" / "run"):
        assert ddim("train", faces, "--out", out, *TRAIN, "--max-steps", 1) == 2
        assert "lies inside the images' folder" in capsys.readouterr().err
    assert not (faces / "run").exists()


@pytest.mark.parametrize(("name", "words"), [("loop", "is no folder"), ("\udcff", "is no UTF-8 text")])
def test_a_place_that_leads_to_itself_or_is_no_text_is_refused(faces, tmp_path, capsys, name, words):
    (tmp_path / "loop").symlink_to("loop")
    assert ddim("train", faces, "--out", tmp_path / name, *TRAIN, "--max-steps", 1) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / name).is_dir()


def test_running_out_of_memory_is_one_line_and_the_same_out_can_be_used_again(faces, tmp_path, capsys, monkeypatch):
    from ddim.jobs.train import loop as train

    run = tmp_path / "run"
    words = ("train", faces, "--out", run, *TRAIN, "--max-steps", 1)
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory")):
        with monkeypatch.context() as patch:
            patch.setattr(train, "_accumulate", raising(error))
            assert ddim(*words) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith("ddim: out of memory with --batch-size 4") and "--accumulation" in said
    assert (run / "state" / "recipe.json").is_file() and (run / "log.jsonl").is_file()
    assert ddim(*words, "--accumulation", 2) == 0
    assert ddim(*words) == 2 and "give --resume" in capsys.readouterr().err
    monkeypatch.setattr(train, "_accumulate", raising(RuntimeError("another thing")))
    with pytest.raises(RuntimeError, match="another thing"):
        main([str(w) for w in ("train", faces, "--out", tmp_path / "other", *TRAIN)])


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_run_that_crashed_before_its_recipe_can_be_begun_anew_but_nothing_else_is_touched(tmp_path):
    from ddim.jobs import refuse_existing

    run = tmp_path / "run"
    (run / "state").mkdir(parents=True)
    for name in (".log.jsonl.part", ".log.jsonl.0123abcd-17-0123abcd.part", "state/step-00000001.part"):
        (run / name).write_text("half")  # by this version or an older one, killed
    refuse_existing(run)
    for precious in (run / n for n in ("mine.txt", "film.part", "state/mine.txt", "state/step-00000001.pt")):
        precious.write_text("keep")
        with pytest.raises(ValueError, match="exists"):
            refuse_existing(run)
        precious.unlink()


def test_auto_counts_the_classes_that_have_images(faces, tmp_path, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    cells = [{"bytes": p.read_bytes(), "path": None} for p in sorted(faces.rglob("*.png"))]
    pq.write_table(pa.table({"image": pa.array(cells), "label": [3] * 12}), tmp_path / "one.parquet")
    assert ddim("train", tmp_path / "one.parquet", "--out", tmp_path / "run", *TRAIN, "--max-steps", 1) == 0
    assert json.loads((tmp_path / "run" / "ddim.json").read_text())["num_classes"] is None
    pq.write_table(pa.table({"image": pa.array(cells), "label": ["a"] * 12}), tmp_path / "words.parquet")
    words = ("train", tmp_path / "words.parquet", "--out", tmp_path / "run2", *TRAIN, "--max-steps", 1)
    assert ddim(*words) == 2 and "give --labels ignore" in capsys.readouterr().err
    assert ddim(*words, "--labels", "ignore") == 0


def test_a_finished_run_is_saved_once_and_through_a_link_at_its_other_end(faces, tmp_path, monkeypatch):
    from ddim.jobs.train import run as trainrun

    saved, real = [], trainrun.checkpoint
    monkeypatch.setattr(trainrun, "checkpoint", lambda *a: saved.append(1) or real(*a))
    run = tmp_path / "run"
    run.symlink_to(tmp_path / "far", target_is_directory=True)
    (tmp_path / "far").mkdir()
    words = ("train", faces, "--out", run, *TRAIN, "--max-steps", 1)
    assert ddim(*words) == 0
    assert len(saved) == 1
    assert run.is_symlink() and (tmp_path / "far" / "ddim.json").is_file()
    assert not [p for p in run.iterdir() if p.name.startswith(".")]
    assert ddim(*words, "--resume") == 0 and len(saved) == 2
