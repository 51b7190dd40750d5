"""`ddim tune --guidance` and `ddim tune --early`: what they print and keep, and that `ddim sample` finds it."""

import json

import pytest
from test_cli import ddim, mistake

from conftest import save_tiny
from ddim import load
from ddim.pixels import save_png, to_uint8
from ddim.process import noise


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    root = tmp_path_factory.mktemp("kept")
    save_tiny(root / "model")
    save_tiny(root / "small", seed=5)
    (root / "data").mkdir()
    for i, pixels in enumerate(to_uint8(noise(range(44), (1, 8, 8)).clamp(-1, 1))):
        save_png(root / "data" / f"{i}.png", pixels)
    return root


def tune(capsys, kept, tmp_path, *args):
    same = ("--steps", 3, "--count", 12, "--extractor", "pixels", "--solver", "ddim", "--device", "cpu", "--trials", 1)
    return ddim(capsys, "tune", kept / "model", kept / "data", *same, *args)


def test_the_commands_keep_what_sample_uses(capsys, kept, tmp_path, monkeypatch):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "found"
    code, text, err = tune(capsys, kept, tmp_path, "--guide", kept / "small", "--out", out, "--guidance")
    assert code == 0, err
    assert "everywhere" in text and "chosen: " in text and "NFE" in text
    document = json.loads((out / "guidance.json").read_text())
    assert document["stamp"]["n"] == 12 and document["stamp"]["search"] == "guidance"
    one, model = document["steps"]["3"], load(kept / "model")
    recipe = model.sampler(steps=3, guidance="tuned", guide=load(kept / "small")).recipe
    assert recipe["guidance"] == one["guidance"] and recipe.get("interval") == one["interval"]
    assert {t["weight"] for t in one["tried"]} >= {1.0, 1.25, 1.5, 2.0, 3.0}
    assert sum(t["unseen"] is not None for t in one["tried"]) in (2, 3)
    made = {p: p.stat().st_mtime_ns for p in (out / "cells").glob("*")}
    assert tune(capsys, kept, tmp_path, "--guide", kept / "small", "--out", out, "--guidance", "auto")[1] == text
    assert {p: p.stat().st_mtime_ns for p in (out / "cells").glob("*")} == made
    code, text, err = tune(capsys, kept, tmp_path, "--early", kept / "small")
    assert code == 0 and "0+3" in text and "3+0" in text and "cost" in text and "1.00" in text, err
    at = model.sampler(steps=3, label=0, early=load(kept / "small")).recipe["at"]
    assert at in (1000, 501, 1)
    both = ("--early", kept / "small", "--guidance", "tuned", "--guide", kept / "small")
    same = ("--device", "cpu", "--count", 1, "--steps", 3)
    assert ddim(capsys, "sample", kept / "model", *same, *both, "--out", tmp_path / "pictures")[0] == 0


def test_what_cannot_be_searched_is_refused(capsys, kept, tmp_path):
    same = ("tune", kept / "model", kept / "data", "--device", "cpu")
    for args, words in [
        (("--guidance", "auto", "--early", kept / "small"), "one search at a time"),
        (("--guidance", "--interval", "1,5"), "--guidance auto finds the interval too"),
        (("--spacing", "trailing"), "the times are what is searched"),
        (("--guidance", "auto", "--no-save"), "nowhere: give --out"),
        (("--guidance", "auto", "--out", kept / "data"), "holds no evaluation"),
        (("--at", 5), "name it, --early"),
    ]:
        assert words in mistake(capsys, *same, *args), words
