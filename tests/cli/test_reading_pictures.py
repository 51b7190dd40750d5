"""Commands that read pictures: sizes are fitted as asked and what that does is said; bad files are skipped if asked."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ddim as package
from ddim.cli import costs, edits
from ddim.cli.argv import main
from ddim.cli.pictures import Fitted, changes
from ddim.cli.typed import classes
from ddim.pixels import as_pixels, fitted
from ddim.refused import Refused

DIGITS = np.load(Path(__file__).parents[1] / "data" / "mnist-100.npz")["pixels"]


def ddim(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    said = capsys.readouterr()
    return stop.value.code, said.out, said.err


@pytest.fixture
def small_digits(tmp_path):
    """MNIST's digits fill 20x20 of 28x28: these files are that middle alone."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for i, digit in enumerate(DIGITS[:24]):
        Image.fromarray(digit[4:24, 4:24, 0]).save(folder / f"{i:02d}.png")
    return folder


def test_a_size_below_the_models_is_a_black_border():
    picture = Image.fromarray(DIGITS[0][4:24, 4:24, 0])
    bordered = as_pixels(fitted(picture, (28, 28), "crop", (20, 20)), 1)
    assert np.array_equal(bordered[4:24, 4:24], DIGITS[0][4:24, 4:24])
    assert bordered.sum() == bordered[4:24, 4:24].sum()
    wide = Image.fromarray(np.arange(200, dtype=np.uint8).reshape(10, 20))
    assert fitted(wide, (8, 8), "resize").size == (8, 8)
    left = np.asarray(fitted(wide, (10, 10), "resize"))[:, 0]
    assert np.abs(left.astype(int) - np.asarray(wide)[:, 0]).max() <= 2  # stretched: nothing is cut off
    with pytest.raises(Refused, match="30x30 do not fit into 28x28"):
        fitted(picture, (28, 28), "crop", (30, 30))


def test_what_a_size_does_is_said():
    assert changes({(32, 32): 9}, (32, 32), "crop", None) == []
    (up,) = changes({(28, 28): 3, (32, 32): 1}, (32, 32), "crop", None)
    assert up.startswith("3 of 4 images (of 28x28, height x width) are enlarged to 32x32; --size 28 puts them")
    (down,) = changes({(90, 120): 5}, (32, 32), "crop", None)
    assert "shrunk to 32x32 and cut to the middle" in down
    (kept,) = changes({(90, 120): 5}, (32, 32), "pad", None)
    assert "cut" not in kept
    assert changes({(20, 20): 5}, (28, 28), "crop", (20, 20)) == []
    with pytest.raises(Refused, match="--size 40 is larger than the 28x28"):
        Fitted(size="40").inner((1, 28, 28))


def test_the_probe_says_which_of_border_and_enlargement_the_model_knows(capsys, small_digits, tmp_path, monkeypatch):
    """Digits of 20x20 are what MNIST has inside its border; enlarged to 28x28 they are too large for it."""
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    code, out, err = ddim(capsys, "reconstruct", "mnist", small_digits, "--steps", 2, "--count", 2, "--method", "naive")
    assert code == 0, err
    assert "24 of 24 images (of 20x20, height x width) are enlarged to 28x28" in out
    assert "the model knows these pictures better unenlarged" in out and "give --size 20" in out
    told = [float(w) for w in out.split("(denoising error ")[1].split() if w[0].isdigit()][:2]
    assert told[1] < 0.8 * told[0]
    again = ("reconstruct", "mnist", small_digits, "--steps", 2, "--count", 2, "--method", "naive", "--size", 20)
    code, out, err = ddim(capsys, *again)
    assert code == 0 and "note:" not in out, err


def test_files_that_cannot_be_read_are_left_out_where_asked(capsys, tiny_folder, small_digits, tmp_path):
    (small_digits / "bad.jpg").write_bytes(b"no picture")
    args = ("encode", tiny_folder, small_digits, "--steps", 2, "--method", "naive", "--out")
    code, _, err = ddim(capsys, *args, tmp_path / "a.safetensors")
    assert code == 2 and "bad.jpg" in err
    code, out, err = ddim(capsys, *args, tmp_path / "b.safetensors", "--skip-unreadable")
    assert code == 0, err
    assert "1 of 25 files cannot be read, left out: bad.jpg" in out
    assert len(package.Latents.load(tmp_path / "b.safetensors")) == 24


def test_classes_have_names():
    names = ("cat", "dog", "House Mouse")
    assert classes("dog,0,CAT, house mouse", names, "--label", "a class") == [1, 0, 0, 2]
    assert classes("9", names, "--label", "a class") == [9]  # the model refuses it, with its range
    assert classes("7", ("3", "7"), "--label", "a class") == [1]
    with pytest.raises(Refused, match="'cats' is none of cat, dog, House Mouse"):
        classes("cats", names, "--label", "a class")
    with pytest.raises(Refused, match="--label takes a class, got 'cats'"):
        classes("cats", None, "--label", "a class")


def test_a_sample_folder_shows_all_its_images_with_seed_and_class(capsys, tiny_folder, tmp_path):
    code, _, err = ddim(
        capsys, "sample", tiny_folder, "--seeds", "0-99", "--steps", 1, "--label", "cycle", "--out", tmp_path / "o"
    )
    assert code == 0, err
    grid = Image.open(tmp_path / "o" / "grid.png")
    side = Image.open(tmp_path / "o" / "000000.png").width
    scale = -(-84 // side)
    assert grid.size == (2 + 10 * (scale * side + 2), 2 + 10 * (scale * side + 2 + 15))
    pixels = np.asarray(grid.convert("L"))
    tile = np.asarray(Image.open(tmp_path / "o" / "000099.png").convert("L"))
    x, y = 2 + 9 * (scale * side + 2), 2 + 9 * (scale * side + 17)
    assert np.array_equal(pixels[y : y + scale * side : scale, x : x + scale * side : scale], tile)
    assert (pixels[y + scale * side : y + scale * side + 15, x : x + scale * side] < 128).any()  # the caption


def test_an_evaluation_chooses_what_the_data_allow_and_tells_its_cost(capsys, tiny_folder, small_digits, tmp_path):
    words = ("evaluate", tiny_folder, small_digits, "--steps", "2,3", "--eta", 0, "--no-sigma-hat", "--out")
    code, out, err = ddim(capsys, *words, tmp_path / "r")
    assert code == 0, err
    assert "12 images a row; real ones: 12 as the reference, 12 for the noise floor; features: mnist" in out
    assert "2 rows: 60 network calls, each counted once an image\n" in out
    assert json.loads((tmp_path / "r" / "report.json").read_text())["stamp"]["n"] == 12
    code, out, _ = ddim(capsys, *words, tmp_path / "r")
    assert code == 0 and "60 network calls, each counted once an image; 60 of them are made already" in out
    for file in sorted(small_digits.iterdir())[18:]:
        file.unlink()
    code, _, err = ddim(capsys, *words, tmp_path / "s")
    assert code == 2 and "has 18 images: an evaluation needs 20 images, half of them for the noise floor" in err


def test_the_time_is_told_after_the_first_batch(capsys, monkeypatch):
    """10 calls in the first batch of 40; the clock starts at the first news, and 20 more calls take 4 s."""
    clock = iter([100.0, 104.0])
    monkeypatch.setattr(costs.time, "monotonic", lambda: next(clock))
    said = []
    monkeypatch.setattr(costs.show, "above", said.append)
    with costs.progress(110, 40) as bar:
        for done in (20, 40, 60, 80):
            bar(done, "row")
    assert said == ["about 5 s to go: 1e+02 ms a network call and image"]


def test_a_direction_that_leaves_the_law_is_said():
    rng = torch.Generator().manual_seed(0)
    z, without, having = (torch.randn(n, 1, 16, 16, generator=rng) for n in (1, 30, 30))
    moved, said = edits.moved(z, without, having, 1.0)  # two sets of one law: a short direction
    assert moved.shape == z.shape and not any("warning" in line for line in said)
    smooth = torch.ones(16, 16).cumsum(0) / 4 - 2
    _, said = edits.moved(z, without, having + smooth, 1.0)
    assert "warning: the edit leaves the law of latents: " in said[-1] and "correlation is off by" in said[-1]
    _, said = edits.moved(z, without, having, 10.0)
    assert any("times as long as the image's latent" in line for line in said)
