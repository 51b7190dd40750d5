import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ddim import Schedule
from ddim.cli import main
from ddim.data import Batch
from ddim.recipe import Recipe, difference
from ddim.train import DivergedError, draws, fit
from ddim.trainstate import TrainState, new_state, resolve_precision

SHAPE = (1, 8, 8)


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


def constant_batches(n, value=0.5):
    def batch_at(step, rows=slice(None)):
        x0 = torch.full((n, *SHAPE), value)[rows]
        return Batch(x0, torch.zeros(len(x0), dtype=torch.int64))

    return batch_at


def ddim(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    return stop.value.code


# -- the recipe ----------------------------------------------------------------------------------------


def test_learning_rate_rises_linearly_then_falls_as_a_cosine():
    recipe = Recipe(lr=1.0, warmup=4, lr_decay_steps=14)
    assert [recipe.lr_at(s) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert recipe.lr_at(9) == pytest.approx(0.01 + 0.99 / 2)  # half way of the cosine
    assert recipe.lr_at(14) == recipe.lr_at(99) == pytest.approx(0.01)
    assert Recipe(lr=1.0, warmup=0).lr_at(0) == Recipe(lr=1.0, warmup=0).lr_at(10**6) == 1.0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"lr": math.nan}, "lr must be above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 10, "accumulation": 4}, "batch_size = 10 is no multiple of accumulation = 4"),
        ({"label_dropout": 1.0}, "label_dropout must be at least 0 and below 1"),
        ({"ema": 1.0}, "ema must be at least 0 and below 1"),
        ({"prediction": "score"}, "unknown prediction 'score'"),
        ({"min_snr_gamma": 0.0}, "min_snr_gamma must be above 0"),
        ({"zero_terminal_snr": True}, "use prediction v or x0"),
        ({"lr_decay_steps": 500, "warmup": 500}, "must lie beyond warmup = 500"),
        ({"optimizer": "sgd"}, "adam or adamw"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_impossible_recipes_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**wrong)


def test_schedules_by_name():
    assert Recipe().noise_schedule() == Schedule.linear(1000)
    assert Recipe(schedule="cosine", timesteps=50).noise_schedule() == Schedule.cosine(50)
    assert Recipe(zero_terminal_snr=True, prediction="v").noise_schedule().has_zero_terminal_snr
    with pytest.raises(ValueError, match="unknown schedule 'sine'"):
        Recipe(schedule="sine").noise_schedule()


def test_the_differing_field_is_named():
    assert difference(Recipe().as_dict(), Recipe(lr=1.0).as_dict()) == "lr was 0.0002 and is now 1.0"
    assert difference(Recipe().as_dict(), Recipe().as_dict()) is None


def test_precision_is_settled_before_it_is_stored():
    assert resolve_precision("auto", "cpu") == "fp32" and resolve_precision("bf16", "cpu") == "bf16"
    with pytest.raises(ValueError, match="fp16 training needs an accelerator"):
        resolve_precision("fp16", "cpu")
    with pytest.raises(ValueError, match="got 'fp8'"):
        resolve_precision("fp8", "cpu")


# -- randomness of a step ------------------------------------------------------------------------------


def test_draws_are_a_function_of_seed_and_step_with_the_right_laws():
    recipe = Recipe(batch_size=4000, label_dropout=0.2)
    a, b, other = (draws(r, s, (2,), 10) for r, s in ((recipe, 3), (recipe, 3), (recipe, 4)))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True)) and not torch.equal(a.eps, other.eps)
    counts = torch.bincount(a.t, minlength=11)
    assert int(counts[0]) == 0 and len(counts) == 11  # t in 1..T, both ends drawn
    chi2 = float(((counts[1:] - 400.0) ** 2 / 400.0).sum())
    assert chi2 < 27.9  # 9 degrees of freedom, p = 0.001
    assert abs(float(a.dropped.float().mean()) - 0.2) < 5 * math.sqrt(0.16 / 4000)
    assert abs(float(a.eps.mean())) < 5 / math.sqrt(8000) and abs(float(a.eps.var()) - 1) < 5 * math.sqrt(2 / 8000)


class Recorder(nn.Module):
    """Returns w everywhere and remembers what it was asked."""

    def __init__(self, null_label=None):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.null_label, self.seen = null_label, []

    def forward(self, x, t, label=None):
        self.seen.append((x.detach().clone(), t, label))
        return self.w.expand_as(x)


def recorded_state(recipe, null_label=None):
    """A TrainState around a Recorder, on accelerate as in real runs."""
    state = new_state(recipe, "digits", SHAPE, None, "cpu")
    module = Recorder(null_label)
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    ema = type(state.ema)(module, recipe.ema)
    network, prepared = state.accelerator.prepare(module, optimizer)
    return TrainState(module, network, prepared, ema, state.schedule, state.accelerator)


def test_the_network_sees_x_t_the_zero_based_time_and_dropped_labels():
    recipe = Recipe(batch_size=64, label_dropout=0.5, warmup=0, clip=1e9)
    state = recorded_state(recipe, null_label=7)
    next(fit(state, constant_batches(64), recipe, max_steps=1))
    x_t, label_t, label = state.unwrapped.seen[0]
    d = draws(recipe, 0, SHAPE, 1000)
    assert torch.equal(label_t, d.t - 1) and label_t.dtype == torch.int64
    a = Schedule.linear().alpha_bar[d.t].float().view(-1, 1, 1, 1)
    assert torch.allclose(x_t, a.sqrt() * 0.5 + (1 - a).sqrt() * d.eps, atol=1e-6)
    assert label.tolist() == [7 if dropped else 0 for dropped in d.dropped]


def test_one_step_is_gradient_descent_on_the_mean_squared_error():
    """out = w = 0: loss = mean eps^2, gradient = -2 mean eps; SGD(lr) gives w = 2 lr mean eps."""
    recipe = Recipe(batch_size=32, warmup=0, lr=0.1, clip=1e9)
    state = recorded_state(recipe)
    p = next(fit(state, constant_batches(32), recipe, max_steps=1))
    eps = draws(recipe, 0, SHAPE, 1000).eps.double()
    assert p.loss == pytest.approx(float(eps.square().mean()), rel=1e-5)
    assert state.unwrapped.w.item() == pytest.approx(0.1 * 2 * float(eps.mean()), rel=1e-4)
    assert p.grad_norm == pytest.approx(2 * abs(float(eps.mean())), rel=1e-4) and p.step == state.step == 1


def test_the_gradient_is_clipped():
    recipe = Recipe(batch_size=32, warmup=0, lr=1.0, clip=1e-4)
    state = recorded_state(recipe)
    next(fit(state, constant_batches(32), recipe, max_steps=1))
    assert abs(float(state.unwrapped.w)) == pytest.approx(1e-4, rel=0.02)


def test_accumulation_changes_nothing_but_rounding():
    weights = []
    for parts in (1, 4):
        recipe = Recipe(batch_size=16, accumulation=parts, warmup=0, lr=1e-3)
        state = new_state(recipe, "digits", SHAPE, 2, "cpu")
        losses = [p.loss for p in fit(state, constant_batches(16), recipe, max_steps=2)]
        weights.append((losses, torch.cat([p.detach().flatten() for p in state.unwrapped.parameters()])))
    (loss_1, w_1), (loss_4, w_4) = weights
    assert loss_1 == pytest.approx(loss_4, rel=1e-5)
    assert float((w_1 - w_4).abs().max()) < 1e-4  # Adam's first steps are lr * sign(gradient): 1e-3 each


def test_ema_follows_the_steps():
    recipe = Recipe(batch_size=4, warmup=0, lr=0.1, clip=1e9, ema=0.5)
    state, expected = recorded_state(recipe), 0.0
    for n, _ in enumerate(fit(state, constant_batches(4), recipe, max_steps=5)):
        d = min(0.5, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * float(state.unwrapped.w)
    assert float(state.ema.shadow["w"]) == pytest.approx(expected, rel=1e-5)


def test_the_loss_falls_in_every_prediction():
    for prediction in ("eps", "x0", "v"):
        recipe = Recipe(prediction=prediction, min_snr_gamma=5.0, batch_size=8, lr=2e-3, warmup=0)
        state = new_state(recipe, "digits", SHAPE, None, "cpu")

        def unlabelled(step, rows=slice(None)):
            return Batch(torch.full((8, *SHAPE), 0.5)[rows], None)

        losses = [p.loss for p in fit(state, unlabelled, recipe, max_steps=25)]
        assert sum(losses[-5:]) < 0.5 * sum(losses[:5]), prediction


# -- guards --------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_before_it_reaches_the_weights():
    recipe = Recipe(batch_size=4, warmup=0)
    state = recorded_state(recipe)

    def poisoned(step, rows=slice(None)):
        return constant_batches(4, math.nan if step == 2 else 0.5)(step, rows)

    # x_t is not looked at by the recorder: let it be
    state.unwrapped.forward = lambda x, t, label=None: state.unwrapped.w + x
    with pytest.raises(DivergedError, match="the loss is nan at step 3"):
        list(fit(state, poisoned, recipe, max_steps=9))
    assert state.step == 2 and math.isfinite(float(state.unwrapped.w)) and math.isfinite(float(state.ema.shadow["w"]))


def test_a_loss_far_above_its_best_for_long_stops():
    recipe = Recipe(batch_size=2, warmup=0, lr=1e-9)
    state = recorded_state(recipe)
    state.unwrapped.forward = lambda x, t, label=None: state.unwrapped.w + (0 if state.step < 20 else 10) + 0 * x
    with pytest.raises(DivergedError, match="above 5 times its best for 100 steps"):
        list(fit(state, constant_batches(2), recipe, max_steps=500))
    assert 120 <= state.step < 140


def test_processes_must_be_able_to_share_a_batch_and_unknown_devices_are_named():
    with pytest.raises(ValueError, match="device 'warp' cannot be used here"):
        new_state(Recipe(), "digits", SHAPE, None, "warp")


# -- the command ---------------------------------------------------------------------------------------


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
    assert Image.open(run / "previews/step-00000004.png").size == (2 + 2 * 10, 2 + 4 * 10)  # 2 classes, 4 rows
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
        (["--batch-size", "0"], "batch_size must be at least 1"),
        (["--lr", "-1"], "lr must be above 0"),
        (["--preset", "huge"], "unknown --preset 'huge'"),
        (["--preset", "mnist", "--size", "9"], "multiples of 4, got 9x9"),
        (["--size", "axb"], "--size is written like"),
        (["--size", "0"], "at least 1x1"),
        (["--precision", "fp16", "--device", "cpu"], "fp16 training needs an accelerator"),
        (["--checkpoint-every", "0"], "--checkpoint-every must be at least 1"),
        (["--resume"], "holds no run to resume"),
        (["--zero-terminal-snr"], "use prediction v or x0"),
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
    for i in range(2):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    assert ddim("train", tmp_path, "--out", tmp_path / "run", "--labels", "use") == 2
    assert "has no classes" in capsys.readouterr().err


def test_an_existing_run_is_never_touched_without_resume(faces, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("keep")
    assert ddim("train", faces, "--out", run, "--max-steps", 1) == 2
    assert "exists" in capsys.readouterr().err and [p.name for p in run.iterdir()] == ["mine.txt"]


def test_a_place_that_cannot_be_written_is_refused_before_the_data_is_read(faces, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("ddim.cli.train_command.open_images", None)
    assert ddim("train", faces, "--out", tmp_path / "file" / "run") == 2
    assert "file" in capsys.readouterr().err


def test_divergence_names_the_last_good_checkpoint_and_fails(faces, tmp_path, capsys, monkeypatch):
    from ddim import train

    real = train._loss
    monkeypatch.setattr(train, "_loss", lambda state, *a: real(state, *a) * (math.nan if state.step == 5 else 1.0))
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
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29631"]
    words = ["-m", "ddim.cli.train_command", str(faces), "--out", str(tmp_path / "two"), *options]
    done = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (
        [json.loads(x)["loss"] for x in (tmp_path / d / "log.jsonl").read_text().splitlines()] for d in ("one", "two")
    )
    assert len(two) == 3 and two == pytest.approx(one, rel=1e-3)
