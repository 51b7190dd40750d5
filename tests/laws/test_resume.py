"""25 steps + save + load + 35 == 60 steps, bit for bit; also after kill -9."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddim.cli import main
from ddim.jobs.train.state import checkpoints

FIXED = [
    "--preset", "digits", "--batch-size", "4", "--lr", "1e-3", "--warmup", "10", "--lr-decay-steps", "50", "--flip",
    "--precision", "fp32", "--device", "cpu", "--preview-every", "40", "--log-every", "5",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i in range(10):
        pixels = (np.arange(64).reshape(8, 8) * (i + 1) % 256).astype(np.uint8)
        path = folder / str(i % 3) / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def train(data, run, steps, *options):
    with pytest.raises(SystemExit) as stop:
        main(["train", str(data), "--out", str(run), "--max-steps", str(steps), *FIXED, *options])
    return stop.value.code


@pytest.fixture(scope="module")
def sixty(data, tmp_path_factory):
    run = tmp_path_factory.mktemp("sixty") / "run"
    assert train(data, run, 60) == 0
    return run


def assert_same(a: Path, b: Path) -> None:
    """Network, optimizer, averages, counters: every number of the newest checkpoints, bit for bit."""
    one, two = (torch.load(checkpoints(r / "state")[-1], weights_only=True) for r in (a, b))
    assert one["step"] == two["step"] == 60

    def flat(value, name=""):
        if isinstance(value, dict):
            return [x for k, v in value.items() for x in flat(v, f"{name}/{k}")]
        if isinstance(value, list):
            return [x for k, v in enumerate(value) for x in flat(v, f"{name}/{k}")]
        return [(name, value)]

    left, right = dict(flat(one)), dict(flat(two))
    assert left.keys() == right.keys() and len(left) > 100
    for name, value in left.items():
        same = torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        assert same, name


def test_so_they_are_in_bf16(data, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert train(data, whole, 60, "--precision", "bf16") == 0
    assert train(data, parts, 25, "--precision", "bf16") == 0
    assert train(data, parts, 60, "--precision", "bf16", "--resume") == 0
    assert_same(whole, parts)


def test_25_and_35_steps_are_60_steps(data, sixty, tmp_path):
    run = tmp_path / "run"
    assert train(data, run, 25) == 0
    assert train(data, run, 60, "--resume") == 0
    assert_same(sixty, run)
    for name in (
        "unet/diffusion_pytorch_model.safetensors",
        "previews/step-00000040.png",
        *(f"averages/step-{step:08d}.safetensors" for step in (16, 32, 48, 60)),
    ):
        assert (run / name).read_bytes() == (sixty / name).read_bytes(), name


def test_the_comparison_can_fail(sixty, tmp_path):
    """One bit of one weight of the average is enough."""
    newest = checkpoints(sixty / "state")[-1]
    content = torch.load(newest, weights_only=True)
    name = next(iter(content["ema"]))
    content["ema"][name].view(-1)[0] = torch.nextafter(content["ema"][name].view(-1)[0], torch.tensor(9.0))
    (tmp_path / "state").mkdir()
    torch.save(content, tmp_path / "state" / newest.name)
    with pytest.raises(AssertionError, match=name):
        assert_same(sixty, tmp_path)


def test_after_kill_9_a_resume_gives_the_same_60_steps(data, sixty, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "ddim", "train", str(data), "--out", str(run), "--max-steps", "60"]
    process = subprocess.Popen(
        [*command, *FIXED, "--checkpoint-every", "7"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while len(checkpoints(run / "state")) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read()
    at = int(checkpoints(run / "state")[-1].stem.removeprefix("step-"))
    assert 0 < at < 60
    assert train(data, run, 60, "--resume", "--checkpoint-every", "50") == 0
    assert_same(sixty, run)
    steps = [
        int(line.split('"step": ')[1].split("}")[0].split(",")[0])
        for line in (run / "log.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(5, 61, 5))  # no line twice, none missing


def test_sigterm_saves_and_says_how_to_go_on(data, sixty, tmp_path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "ddim", "train", str(data), "--out", str(run), "--max-steps", "60"]
    process = subprocess.Popen(
        [*command, *FIXED, "--checkpoint-every", "10"], env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not checkpoints(run / "state") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate()
    if process.returncode == 0:
        pytest.skip("the run was over before the signal came")
    assert process.returncode == 128 + signal.SIGTERM
    said = errors.splitlines()[-1]
    at = int(checkpoints(run / "state")[-1].stem.removeprefix("step-"))
    assert f"stopped at step {at}" in said and said.endswith(f"ddim train --resume {run}")
    assert train(data, run, 60, "--resume") == 0
    assert_same(sixty, run)


def test_resume_refuses_another_recipe_by_name_but_not_another_cadence(data, sixty, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(data, run, 2) == 0
    for options, words in (
        (["--lr", "0.5"], "lr was 0.001 and is now 0.5"),
        (["--seed", "3"], "seed was 0 and is now 3"),
        (["--labels", "ignore"], "conditional was True and is now False"),
        (["--size", "16"], "shape"),
    ):
        before = sorted(p.stat().st_mtime_ns for p in run.rglob("*"))
        assert train(data, run, 4, "--resume", *options) == 2
        assert words in capsys.readouterr().err.splitlines()[-1]
        assert sorted(p.stat().st_mtime_ns for p in run.rglob("*")) == before
    assert train(data, run, 1, "--resume") == 2
    assert "is at step 2 already, beyond --max-steps 1" in capsys.readouterr().err
    assert train(data, run, 3, "--resume", "--checkpoint-every", "1", "--log-every", "1") == 0


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_gone_on_from(data, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(data, run, 2, "--checkpoint-every", "1") == 0
    newest = checkpoints(run / "state")[-1]
    newest.write_bytes(newest.read_bytes()[:5000])
    assert train(data, run, 4, "--resume") == 0
    said = capsys.readouterr().err
    assert f"note: {newest} is damaged or cut short" in said and "going on from step 1" in said
    assert (newest.parent / (newest.name + ".damaged")).exists()


def test_dropout_networks_resume_bitwise_too(data, tmp_path, monkeypatch):
    """cifar10's network drops units at random: its masks are a function of (seed, step)."""
    from dataclasses import replace

    from ddim.nets import PRESETS

    monkeypatch.setitem(PRESETS, "digits", replace(PRESETS["digits"], dropout=0.3))
    for name, stops in (("whole", [6]), ("parts", [2, 6])):
        for stop in stops:
            resume = ["--resume"] if (tmp_path / name).exists() else []
            assert train(data, tmp_path / name, stop, *resume) == 0
    one, two = (
        torch.load(tmp_path / n / "state/step-00000006.pt", weights_only=True)["network"] for n in ("whole", "parts")
    )
    assert all(torch.equal(one[k], two[k]) for k in one)
