"""Two trainings in one folder: the second is refused, and a killed one leaves nothing that stands in the way."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from ddim import Refused
from ddim.cli.argv import main
from ddim.files import Hold
from ddim.jobs import Share, open_job, take_up
from ddim.jobs.train import run as runs

TRAIN = ["train", "digits", "--preset", "digits", "--batch-size", "4", "--checkpoint-every", "100000",
         "--preview-every", "0", "--precision", "fp32"]  # fmt: skip


def test_a_folder_is_held_by_one_and_free_after_it(tmp_path):
    first = Hold(tmp_path)
    with pytest.raises(Refused, match="another process is at work"):
        Hold(tmp_path)
    first.release()
    second = Hold(tmp_path)
    del second
    Hold(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_second_training_in_a_folder_is_refused_and_a_killed_one_is_taken_up(tmp_path):
    run = tmp_path / "run"

    def started(seed, *more):
        words = [sys.executable, "-m", "ddim", *TRAIN, "--out", str(run), "--seed", str(seed), *more]
        return subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    first = started(0, "--max-steps", "1000000")
    try:
        recipe, begun = run / "state/recipe.json", time.monotonic()
        while not recipe.exists() and time.monotonic() - begun < 120:
            time.sleep(0.1)
        second = started(1, "--max-steps", "2")
        says = second.communicate(timeout=120)[1]
        assert second.returncode == 2 and "another process is at work" in says
        assert json.loads(recipe.read_text())["seed"] == 0 and first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.communicate()
    third = started(1, "--max-steps", "2")
    assert third.wait(timeout=120) == 0, third.communicate()[1]
    assert json.loads(recipe.read_text())["seed"] == 1


def test_a_training_that_began_between_the_look_and_the_first_write_is_left_alone(tmp_path, monkeypatch, capsys):
    """The network is built between the two: long enough for another to train and end."""
    built, run = runs.state_of, tmp_path / "run"

    def slow(*args):
        state = built(*args)
        (run / "state").mkdir(parents=True)
        (run / "state" / "step-00000001.pt").write_text("theirs")
        return state

    monkeypatch.setattr(runs, "state_of", slow)
    with pytest.raises(SystemExit) as stop:
        main([*TRAIN, "--out", str(run), "--max-steps", "1"])
    assert stop.value.code == 2 and "exists" in capsys.readouterr().err
    assert [p.name for p in run.rglob("*")] == ["state", "step-00000001.pt"]


def test_of_two_recipes_that_begin_one_folder_at_once_one_wins(tmp_path):
    for i in range(20):
        out, won = tmp_path / str(i), []

        def begin(k, out=out, won=won):
            try:
                open_job(out, {"eta": k})
            except Refused as error:
                assert "its eta is" in str(error)
                return
            won.append(k)

        threads = [threading.Thread(target=begin, args=(k,)) for k in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(30)
        assert len(won) == 1 and json.loads((out / "recipe.json").read_text()) == {"eta": won[0]}
        assert [p.name for p in out.iterdir()] == ["recipe.json"]


def test_two_evaluations_in_one_folder_wait_and_the_processes_of_one_share_it(tmp_path):
    first, _ = take_up(tmp_path / "report", Share(0, 2))
    assert take_up(tmp_path / "report", Share(1, 2))[0] is None  # of the same torchrun
    with pytest.raises(Refused, match="another process is at work"):
        take_up(tmp_path / "report")
    first.release()
    take_up(tmp_path / "report")
    open_job(tmp_path / "images", {})
    with pytest.raises(Refused, match="holds no evaluation"):
        take_up(tmp_path / "images")
