"""What sampling a run shows is what its previews showed, and looks like the data: no broken first pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddim.cli import main

TILE = 88  # of 8x8 pictures: enlarged to at least 84


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def ddim(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    return stop.value.code


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """64 smooth pictures of two classes, dark at one side and bright at the other, with few pixels at 0 or 255."""
    root, rng = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    y, x = np.mgrid[0:8, 0:8] / 7.0
    for i in range(64):
        hue, slope = rng.uniform(-0.4, 0.4, 3), rng.uniform(0.3, 0.6)
        ramp = (x if i % 2 else y)[..., None] * 2 - 1
        levels = np.clip((hue + slope * ramp + 1) * 127.5, 0, 255).round().astype(np.uint8)
        path = root / ("left" if i % 2 else "up") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(levels).save(path)
    return root


STEPS = 150


def trained(colours, run, *options):
    assert ddim(
        "train", colours, "--out", run, "--preset", "digits", "--max-steps", STEPS, "--batch-size", 32, "--lr", "2e-3",
        "--warmup", 20, "--ema", "0.9", "--preview-every", STEPS, "--precision", "fp32", "--device", "cpu", *options,
    ) == 0  # fmt: skip
    return run


@pytest.fixture(scope="module")
def plain(colours, tmp_path_factory):
    return trained(colours, tmp_path_factory.mktemp("plain") / "run", "--labels", "ignore")


@pytest.fixture(scope="module")
def eps(colours, tmp_path_factory):
    return trained(colours, tmp_path_factory.mktemp("eps") / "run", "--prediction", "eps")


def sampled(run, out, n, *options):
    assert ddim("sample", run, "--n", n, "--steps", 20, "--out", out, *options) == 0
    return np.stack([np.asarray(Image.open(out / f"{i:06d}.png")) for i in range(n)])


def previewed(run: Path, columns, top=2):
    sheet = np.asarray(Image.open(run / f"previews/step-{STEPS:08d}.png"))
    corners = [(top + r * (TILE + 2), 2 + c * (TILE + 2)) for r in range(4) for c in range(columns)]
    return np.stack([sheet[y : y + TILE : TILE // 8, x : x + TILE : TILE // 8] for y, x in corners])


def saturated(pixels):
    return float(((pixels == 0) | (pixels == 255)).mean())


def test_the_samples_of_a_run_are_its_previews(plain, eps, tmp_path):
    """Pixel by pixel: the same seeds, steps and number format; with classes, each in turn."""
    assert np.array_equal(previewed(plain, 8), sampled(plain, tmp_path / "plain", 32))
    assert np.array_equal(previewed(eps, 2, top=24), sampled(eps, tmp_path / "eps", 8, "--label", "cycle"))


def test_a_short_colour_run_makes_no_more_black_and_white_than_there_is(plain, colours, tmp_path):
    data = np.stack([np.asarray(Image.open(p)) for p in sorted(colours.rglob("*.png"))])
    images = sampled(plain, tmp_path / "out", 64, "--precision", "fp32")
    assert abs(saturated(images) - saturated(data)) < 0.02
    assert 20 < images.std() < 90  # and it is no grey either: the data's is 60


def test_runs_that_predict_eps_clip_where_they_are_sampled_and_v_learns_without(plain, eps):
    said = {run: json.loads((run / "ddim.json").read_text()) for run in (plain, eps)}
    assert said[plain]["prediction"] == "v" and said[plain]["clips"] is False
    assert said[eps]["prediction"] == "eps" and said[eps]["clips"] is True
    assert json.loads((eps / "scheduler/scheduler_config.json").read_text())["clip_sample"] is True


def test_a_run_that_clips_still_encodes_and_comes_back(eps, tmp_path):
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8), (90, 120, 160)).save(image)
    assert ddim("encode", eps, image, "--steps", 20, "--method", "exact", "--out", tmp_path / "z.safetensors") == 0
    assert ddim("decode", eps, tmp_path / "z.safetensors", "--out", tmp_path / "back") == 0
    (back,) = (np.asarray(Image.open(p)).astype(int) for p in (tmp_path / "back").glob("a*.png"))
    assert np.abs(back - [90, 120, 160]).max() <= 1


def test_pictures_larger_than_any_network_is_for_are_asked_about(tmp_path, capsys):
    for i in range(2):
        path = tmp_path / "large" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (300, 200), (i, 2, 3)).save(path)
    assert ddim("train", tmp_path / "large", "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the images are 200x300" in said and "give --size 64" in said and not (tmp_path / "run").exists()
    options = ("--size", "8", "--max-steps", 1, "--batch-size", 2, "--preview-every", 0)
    assert ddim("train", tmp_path / "large", "--out", tmp_path / "run", *options) == 0
