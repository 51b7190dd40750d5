"""Snapshots of averages in a run, and `ddim ema`, which rebuilds others from them."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ddim
from ddim.cli import main
from ddim.jobs import Averages
from ddim.jobs.train import snapshot_files, snapshot_spacing, snapshot_steps
from ddim.nets import gamma_of, inner

QUICK = ["--preset", "digits", "--batch-size", "4", "--lr", "1e-3", "--warmup", "0", "--precision", "fp32", "--device",
         "cpu", "--preview-every", "0"]  # fmt: skip


def typed(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    return stop.value.code


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    for i in range(24):
        pixels = np.full((8, 8), 20 + i, np.uint8)
        pixels[:, slice(0, 4) if i % 2 else slice(4, 8)] = 230 - i
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def trained(faces, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    assert typed("train", faces, "--out", run, "--max-steps", 70, *QUICK, "--checkpoint-every", 25) == 0
    return run


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def error(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_there_are_12_to_24_snapshots_however_long_the_run_and_later_ones_are_earlier_ones():
    for updates in (200, 384, 385, 10_000, 393_216, 393_217, 5_000_000):
        steps = snapshot_steps(0, updates, snapshot_spacing(updates))
        assert 12 <= len(steps) <= 25 and steps[-1] == updates
        gaps = set(np.diff([0, *steps[:-1]]))
        assert gaps == {snapshot_spacing(updates)} and snapshot_spacing(updates) % snapshot_spacing(updates - 1) == 0
    assert snapshot_spacing(384) == 16 and snapshot_spacing(385) == 32 and snapshot_spacing(10_000) == 512


def test_a_run_keeps_them_at_multiples_of_16_and_at_its_checkpoints(trained):
    assert list(snapshot_files(trained)) == [16, 32, 48, 50, 64, 70]
    assert typed("train", "--resume", trained) == 0  # a finished run: the same again
    assert list(snapshot_files(trained)) == [16, 32, 48, 50, 64, 70]


def test_a_kept_length_comes_back_as_a_model_that_says_what_it_is(run):
    assert typed("ema", run, "--length", "0.10") == 0
    out, newest = run / "ema-0.1", torch.load(run / "state/step-00000070.pt", weights_only=True)
    state, weights = newest["powers"]["shadows"][1], load_file(out / "unet/diffusion_pytorch_model.safetensors")
    assert newest["powers"]["lengths"][1] == 0.1 and {f"unet.{n}" for n in weights} == set(state)
    for name, value in weights.items():
        torch.testing.assert_close(value, state[f"unet.{name}"], rtol=1e-3, atol=1e-6)
    own = json.loads((run / "ddim.json").read_text())
    told = json.loads((out / "ddim.json").read_text())
    assert told["shape"] == own["shape"] and told["sha256"] != own["sha256"]
    origin = told["provenance"]
    assert (origin["length"], origin["steps"], origin["weights"]) == (0.1, 70, "post-hoc ema")
    assert origin["snapshots"] == [16, 32, 48, 64, 70] and origin["data_sha256"] == own["provenance"]["data_sha256"]
    assert ddim.load(out).sample(1, steps=2).shape == (1, 1, 8, 8)


def test_an_earlier_end_may_be_asked_for(run, capsys):
    """At a snapshot's own step, of a kept length: that snapshot."""
    (run.parent / "early").mkdir()  # as one that was killed at its end leaves it
    assert typed("ema", run, "--length", "0.05", "--at", "48", "--out", run.parent / "early") == 0
    weights = load_file(run.parent / "early/unet/diffusion_pytorch_model.safetensors")
    kept = load_file(run / "averages/step-00000048.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(value, kept[f"0.05/unet.{name}"].float(), rtol=1e-4, atol=1e-6)
    assert typed("ema", run, "--length", "0.05", "--at", "40") == 2
    assert "no snapshot of step 40; choose --at of 16, 32, 48, 50, 64, 70" in error(capsys)


def test_a_length_beyond_what_the_snapshots_hold_is_refused_with_the_range(run, capsys):
    """Its ends by the projection itself: what is left over at them is at most 5 %, and beyond them more."""
    kept = Averages.of(run)
    low, high = kept.span()
    assert low < 0.05 < 0.10 < high
    times = np.repeat([16.0, 32.0, 48.0, 64.0, 70.0], 2)
    powers = np.tile([gamma_of(0.05), gamma_of(0.10)], 5)
    for length, fits in ((low, True), (low - 0.002, False), (high, True), (high + 0.002, False)):
        goal = gamma_of(length)
        among, wanted = inner(times[:, None], powers[:, None], times, powers), inner(times, powers, 70.0, goal)
        left = 1 - wanted @ np.linalg.solve(among, wanted) / inner(70.0, goal, 70.0, goal)  # without the sum of 1
        assert (left < 0.05**2) == fits, length
    assert typed("ema", run, "--length", "0.05,0.28", "--data", "nowhere") == 2
    assert f"length 0.28 cannot be rebuilt from the 5 snapshots of {run}: --length may be {low:g} to {high:g}" in (
        said := error(capsys)
    ), said
    assert typed("ema", run, "--length", "0.5") == 2 and "at most 0.289" in error(capsys)


def test_a_gap_is_named(run, capsys):
    (run / "averages/step-00000048.safetensors").unlink()
    assert typed("ema", run, "--length", "0.07") == 2
    assert "a gap: step-00000048 is missing; bring them back, or take what was averaged before it by --at 32" in error(
        capsys
    )
    assert typed("ema", run, "--length", "0.10", "--at", "32") == 0


def test_what_is_no_snapshot_of_this_run_is_named(run, capsys):
    folder = run / "averages"
    whole = (folder / "step-00000048.safetensors").read_bytes()
    (folder / "step-00000048.safetensors").write_bytes(whole[:3000])
    assert typed("ema", run, "--length", "0.07") == 2 and "step-00000048" in error(capsys)
    shutil.copy(folder / "step-00000032.safetensors", folder / "step-00000048.safetensors")
    assert typed("ema", run, "--length", "0.07") == 2 and "snapshot of step 32 by another name" in error(capsys)


def test_nothing_is_overwritten_and_several_lengths_need_images(run, capsys):
    assert typed("ema", run, "--length", "0.07", "--out", run) == 2 and "exists" in error(capsys)
    assert typed("ema", run, "--length", "0.05,0.1") == 2
    assert "chosen from by real images: give --data, or one --length" in error(capsys)


def test_a_run_without_snapshots_resumes_and_keeps_them_from_there_on(faces, tmp_path, capsys):
    """As a run of an older version does: what is averaged are the steps since then."""
    run = tmp_path / "run"
    assert typed("train", faces, "--out", run, "--max-steps", 3, "--no-snapshots", *QUICK) == 0
    assert not (run / "averages").exists()
    assert typed("ema", run, "--length", "0.1") == 2 and "holds no snapshots of averages" in error(capsys)
    assert typed("train", "--resume", run, "--max-steps", 5) == 0  # stays off, as it was begun
    assert not (run / "averages").exists()
    assert typed("train", "--resume", run, "--max-steps", 22, "--snapshots") == 0
    assert list(snapshot_files(run)) == [5 + 16, 22]
    kept = Averages.of(run)
    assert (kept.since, kept.step, list(kept.files)) == (5, 22, [21, 22])
    assert typed("train", "--resume", run, "--max-steps", 24, "--no-snapshots") == 0  # and what there is stays
    assert list(snapshot_files(run)) == [21, 22] and Averages.of(run).step == 22


def test_snapshots_beyond_the_checkpoint_that_is_resumed_are_made_again(faces, run):
    """A run killed after a snapshot and before its checkpoint."""
    before = (run / "averages/step-00000064.safetensors").read_bytes()
    (run / "state/step-00000070.pt").unlink()
    (run / "averages/step-00000064.safetensors").write_bytes(b"another")
    assert typed("train", "--resume", run, "--max-steps", 60) == 0
    assert list(snapshot_files(run)) == [16, 32, 48, 50, 60]
    assert typed("train", "--resume", run, "--max-steps", 70, "--checkpoint-every", 25) == 0
    assert list(snapshot_files(run)) == [16, 32, 48, 60, 64, 70]
    assert (run / "averages/step-00000064.safetensors").read_bytes() == before


def test_the_length_nearest_to_real_images_is_written_with_all_that_were_measured(run, faces, capsys):
    words = [
        "ema",
        run,
        "--length",
        "0.05,0.1,0.12",
        "--data",
        faces,
        "--count",
        "10",
        "--steps",
        "2",
        "--batch-size",
        10,
    ]
    assert typed(*words, "--out", run.parent / "best", "--extractor", "pixels") == 0
    said = capsys.readouterr().out
    chosen = json.loads((run.parent / "best/ddim.json").read_text())["provenance"]
    found = chosen["chosen"]["distances"]
    assert set(found) == {"0.05", "0.1", "0.12", "the run's own"} and chosen["chosen"]["n"] == 10
    assert chosen["length"] == float(min(("0.05", "0.1", "0.12"), key=lambda k: found[k]))
    table = {
        line.split()[0]: float(line.split()[1]) for line in said.splitlines() if line.strip()[:3] in ("0.0", "0.1")
    }
    assert table == {k: pytest.approx(v, rel=1e-3) for k, v in found.items() if k in table} and len(table) == 3
    assert typed(*words, "--out", run.parent / "again", "--extractor", "pixels") == 0
    assert "80 of them are made already" in capsys.readouterr().out  # 4 rows of 10 images in 2 calls
