"""Two trainings in one folder: the second is refused, and a killed one leaves nothing that stands in the way."""

import json
import signal
import subprocess
import sys
import time

import pytest

from ddim import Refused
from ddim.jobs.job import Hold

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
