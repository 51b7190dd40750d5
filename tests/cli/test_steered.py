"""--guide, --interval, --early and --at from the outside: recorded, not mixed, found again, refused in one line."""

import json

import numpy as np
import pytest
from PIL import Image
from test_cli import ddim, mistake

from conftest import save_tiny
from ddim import load, noise
from ddim.pixels import save_png, to_uint8


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("bad") / "model", seed=5, prediction="v")


@pytest.fixture(scope="module")
def photos_8x8(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i, pixels in enumerate(to_uint8(noise(range(60), (1, 8, 8)).clamp(-1, 1))):
        save_png(folder / f"{i}.png", pixels)
    return folder


def test_sample_keeps_the_guide_in_its_recipe_and_does_not_mix_two(capsys, tiny_folder, bad, tmp_path):
    out, same = tmp_path / "out", ("sample", tiny_folder, "--count", 2, "--steps", 3, "--device", "cpu")
    guided = ("--guide", bad, "--guidance", 2, "--interval", "100,900")
    assert ddim(capsys, *same, *guided, "--out", out)[0] == 0
    recipe = json.loads(Image.open(out / "000001.png").text["ddim"])
    assert recipe["guide"] == load(bad).checkpoint.identity
    assert (recipe["guidance"], recipe["interval"]) == (2.0, [100, 900])
    assert "its guide is" in mistake(capsys, *same, *guided[2:], "--guide", tiny_folder, "--out", out)
    assert ddim(capsys, *same, *guided, "--out", out)[0] == 0
    other = tmp_path / "early"
    assert ddim(capsys, *same, "--early", bad, "--at", 600, "--out", other)[0] == 0
    recipe = json.loads(Image.open(other / "000001.png").text["ddim"])
    assert (recipe["early"], recipe["at"]) == (load(bad).checkpoint.identity, 600)
    assert "its at is 600" in mistake(capsys, *same, "--early", bad, "--at", 500, "--out", other)


def test_mistakes_are_one_line_in_flags(capsys, tiny_folder, bad, tmp_path):
    wide = save_tiny(tmp_path / "wide", shape=(1, 16, 16))
    same = ("sample", tiny_folder, "--steps", 2, "--device", "cpu", "--out", tmp_path / "none")
    for args, words in [
        (("--guide", bad), "--guide does nothing at weight 1: give --guidance"),
        (("--guide", wide, "--guidance", 2), "--guide has another image shape"),
        (("--early", wide, "--at", 5), "--early has another image shape"),
        (("--early", bad), "give --at, or run ddim tune MODEL DATA with the same --early"),
        (("--early", bad, "--at", 1001), "--at = 1001 lies outside 1..1000"),
        (("--at", 5), "name it, --early"),
        (("--interval", "1,5"), "give --guidance"),
        (("--guidance", 2, "--label", 1, "--interval", "5"), "--interval takes two times"),
        (("--guidance", 2, "--label", 1, "--interval", "a,b"), "--interval takes numbers"),
        (("--guidance", "tuned", "--label", 1), "no tuned guidance for solver ddim and 2 steps"),
        (("--guide", tmp_path / "nothing", "--guidance", 2), "nothing"),
    ]:
        assert words in mistake(capsys, *same, *args), words
    assert not (tmp_path / "none").exists()


def test_evaluate_counts_both_networks_and_keeps_cells_apart(
    capsys, tiny_folder, bad, photos_8x8, tmp_path, monkeypatch
):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "report"
    same = ("evaluate", tiny_folder, photos_8x8, "--count", 12, "--steps", 3, "--eta", "0", "--no-sigma-hat",
            "--extractor", "pixels", "--device", "cpu", "--out", out)  # fmt: skip
    for args, nfe, found in [((), 3, {}), (("--guide", bad, "--guidance", 2), 6, {"guide", "guidance"}),
                             (("--guide", bad, "--guidance", 2, "--interval", "900,1000"), 4, {"interval"}),
                             (("--early", bad, "--at", 600), 3, {"early", "at"})]:  # fmt: skip
        code, text, err = ddim(capsys, *same, *args)
        assert code == 0, err
        assert f"1 row: {12 * nfe} network calls" in text and "made already" not in text
        report = json.loads((out / "report.json").read_text())
        assert report["rows"][0]["nfe"] == nfe and set(found) <= set(report["stamp"])
    assert f"{12 * 3} of them are made already" in ddim(capsys, *same)[1]


def test_what_was_encoded_with_a_guide_asks_for_it_again(capsys, tiny_folder, bad, photos_8x8, tmp_path):
    z, same = tmp_path / "z.safetensors", ("--device", "cpu")
    guided = ("--guide", bad, "--guidance", 1.5, "--interval", "300,1000")
    assert ddim(capsys, "encode", tiny_folder, photos_8x8 / "3.png", *guided, "--steps", 4, *same, "--out", z)[0] == 0
    assert "name it again (--guide)" in mistake(capsys, "decode", tiny_folder, z, *same, "--out", tmp_path / "no")
    code, text, err = ddim(capsys, "decode", tiny_folder, z, "--guide", bad, *same, "--out", tmp_path / "back")
    assert code == 0 and "note" not in text, (text, err)
    back, was = (np.array(Image.open(f / "3.png")).astype(int) for f in (tmp_path / "back", photos_8x8))
    assert abs(back - was).max() <= 1
    code, text, _ = ddim(capsys, "decode", tiny_folder, z, "--guidance", 1, *same, "--out", tmp_path / "other")
    assert code == 0 and "note" in text and "guide" in text
