"""`ddim measure`: images that exist already get the numbers that `ddim.metrics` gives by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddim.cli.argv import main
from ddim.metrics import Moments, extractor, fidelity, frechet, kid
from ddim.pixels import from_uint8, save_png


def digits():
    return np.load(Path(__file__).parent.parent / "data" / "mnist-100.npz")["pixels"]


def folder(path, pixels):
    path.mkdir()
    for i, p in enumerate(pixels):
        save_png(path / f"{i:03d}.png", p)
    return path


def measure(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(["measure", *map(str, args)])
    out = capsys.readouterr()
    return stop.value.code, out.out, out.err


@pytest.fixture
def sets(tmp_path):
    x = digits()
    return folder(tmp_path / "real", x[:60]), folder(tmp_path / "held", x[60:]), tmp_path


def test_numbers_are_those_of_the_metrics(capsys, sets):
    real, held, tmp = sets
    noisy = (digits()[60:].astype(int) * 3 // 4 + 30).astype(np.uint8)
    own = folder(tmp / "own", noisy)
    code, text, err = measure(capsys, own, real, "--held-out", held, "--out", tmp / "report")
    assert code == 0, err
    found = json.loads((tmp / "report" / "measure.json").read_text())
    look = extractor("mnist")
    a, b, c = (look.features(from_uint8(p)) for p in (noisy, digits()[:60], digits()[60:]))
    assert found["row"]["distance"] == pytest.approx(frechet(Moments.of(a), Moments.of(b)), rel=1e-4)
    assert found["floor"]["distance"] == pytest.approx(frechet(Moments.of(c), Moments.of(b)), rel=1e-4)
    assert found["row"]["kid"] == pytest.approx(kid(a, b).mean, rel=1e-3)
    assert found["row"]["recall"] == pytest.approx(fidelity(b[:40], a).recall, abs=0.1)
    assert found["stamp"]["n"] == 40 and "60 images" in found["stamp"]["reference"]
    assert "FD-mnist" in text and "real, held out" in text and found["answer"] in text


def test_real_images_are_not_told_apart_and_black_ones_are(capsys, sets):
    real, held, tmp = sets
    _, text, _ = measure(capsys, held, real, "--held-out", held)
    rows = [line.split() for line in text.splitlines()[1:3]]
    assert rows[0][1:] == rows[1][3:] and "not told apart from real images" in text  # the same images twice
    black = folder(tmp / "black", np.zeros((40, 28, 28, 1), np.uint8))
    assert ": told apart from real images" in measure(capsys, black, real, "--held-out", held)[1]


def test_a_job_is_measured_without_its_grid_and_in_its_own_shape(capsys, sets):
    real, held, tmp = sets
    job = folder(tmp / "job", digits()[60:])
    (job / "recipe.json").write_text("{}")
    Image.new("L", (300, 300)).save(job / "grid.png")
    code, text, err = measure(capsys, job, real, "--held-out", held, "--n", 20)
    assert code == 0 and "20 of 40 images" in text, err
    assert list(tmp.glob("job/*.json")) == [job / "recipe.json"]


@pytest.mark.parametrize(
    ("more", "says"),
    [(("--n", 41), "between 10 and 40"), (("--reference", 3), "at least 10"), (("--batch-size", 0), "at least 1")],
)
def test_what_cannot_be_measured_is_one_line(capsys, sets, more, says):
    real, held, _ = sets
    code, _, err = measure(capsys, held, real, "--held-out", held, *more)
    assert code == 2 and says in err and err.count("\n") == 1


def test_few_real_images_are_shared(capsys, sets):
    real, held, tmp = sets
    assert "30 of 40 images, against 30 of" in measure(capsys, held, real)[1]
    tiny = folder(tmp / "tiny", digits()[:12])
    assert "at least 10 are measured" in measure(capsys, held, tiny)[2]
