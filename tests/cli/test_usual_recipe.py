"""What `ddim train` takes for what is not given: of a new run, of fine-tuning, of a run that goes on."""

import json

import numpy as np
import pytest
from PIL import Image

from ddim.cli.argv import main

FEW = ["--preset", "digits", "--max-steps", "1", "--preview-every", "0", "--device", "cpu", "--precision", "fp32"]


@pytest.fixture
def grey(tmp_path):
    place = tmp_path / "grey"
    place.mkdir()
    g = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(g.integers(0, 255, (8, 8), dtype=np.uint8)).save(place / f"{i}.png")
    return place


def train(*words):
    with pytest.raises(SystemExit) as stop:
        main(["train", *map(str, words)])
    return stop.value.code


def recipe(run):
    return json.loads((run / "state/recipe.json").read_text())


def test_a_small_network_learns_as_was_measured_best(grey, tmp_path):
    assert train(grey, "--out", tmp_path / "r", *FEW) == 0
    found = recipe(tmp_path / "r")
    assert (found["prediction"], found["schedule"], found["min_snr_gamma"]) == ("v", "cosine", 5.0)
    assert (found["lr"], found["batch_size"]) == (2e-3, 32)


def test_what_is_asked_for_is_taken(grey, tmp_path):
    asked = ["--schedule", "linear", "--min-snr-gamma", "0", "--lr", "1e-4", "--batch-size", "4"]
    assert train(grey, "--out", tmp_path / "r", *FEW, *asked) == 0
    found = recipe(tmp_path / "r")
    assert (found["schedule"], found["min_snr_gamma"], found["lr"], found["batch_size"]) == ("linear", None, 1e-4, 4)
    assert train("--resume", tmp_path / "r", "--max-steps", "2") == 0, "none stays none"
    assert train(tmp_path / "grey", "--out", tmp_path / "tuned", *FEW, "--init", tmp_path / "r") == 0
    found = recipe(tmp_path / "tuned")
    assert (found["schedule"], found["lr"]) == ("linear", 2e-4), "as the weights know it, and slowly"


def test_a_continuous_process_is_weighted_as_its_papers_do(grey, tmp_path):
    assert train(grey, "--out", tmp_path / "r", *FEW, "--process", "flow") == 0
    assert recipe(tmp_path / "r")["min_snr_gamma"] is None


@pytest.mark.parametrize("said", [{"preset": [1]}, {"preset": "unknown"}, "word"])
def test_a_provenance_that_says_nothing_of_a_preset(grey, tmp_path, capsys, said):
    assert train(grey, "--out", tmp_path / "r", *FEW) == 0
    told = json.loads((tmp_path / "r/ddim.json").read_text())
    (tmp_path / "r/ddim.json").write_text(json.dumps(told | {"provenance": said}))
    assert train(grey, "--out", tmp_path / "next", "--init", tmp_path / "r", *FEW[2:]) == 0, capsys.readouterr().err
