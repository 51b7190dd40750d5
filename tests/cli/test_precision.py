"""Images for people take the fast arithmetic where there is one, say so, and a job goes on as it began."""

import json

import numpy as np
import pytest
from PIL import Image
from test_cli import ddim, mistake

from ddim.cli.argv import command_of
from ddim.pixels import save_png


@pytest.fixture
def fast(monkeypatch):
    """Says whether this machine computes in bf16, whatever it does."""

    def says(whether):
        monkeypatch.setattr("ddim.engine.devices.has_fast_bf16", lambda device: whether)

    says(True)
    return says


def told(path):
    return json.loads(Image.open(path).text["ddim"])


def test_the_default_is_fast_for_people_and_exact_for_latents():
    defaults = {name: getattr(command_of(name), "precision", None) for name in (
        "sample", "demo", "interpolate", "consistency", "edit", "evaluate", "train", "encode", "decode", "reconstruct",
        "tune",
    )}  # fmt: skip
    quick = {name for name, precision in defaults.items() if precision == "auto"}
    assert quick == {"sample", "demo", "interpolate", "consistency", "edit", "evaluate", "train"}
    assert {precision for name, precision in defaults.items() if name not in quick} == {"fp32"}


def test_a_recipe_says_what_was_used(capsys, tiny_folder, tmp_path, fast):
    args = ("sample", tiny_folder, "--n", 1, "--steps", 2, "--device", "cpu", "--out")
    for whether, precision in ((True, "bf16"), (False, "fp32")):
        fast(whether)
        assert ddim(capsys, *args, tmp_path / precision)[0] == 0
        assert told(tmp_path / precision / "000000.png")["precision"] == precision


def test_a_job_begun_before_goes_on_as_it_began(capsys, tiny_folder, tmp_path, fast):
    """Its recipe says fp32, then the default; what is made anew has the same bytes, on a machine that has bf16."""
    out = tmp_path / "job"
    args = ("sample", tiny_folder, "--n", 3, "--steps", 3, "--device", "cpu", "--out", out)
    assert ddim(capsys, *args, "--precision", "fp32")[0] == 0
    recipe, image = (out / "recipe.json").read_bytes(), (out / "000001.png").read_bytes()
    (out / "000001.png").unlink()
    code, _, err = ddim(capsys, *args)
    assert code == 0, err
    assert (out / "recipe.json").read_bytes() == recipe and json.loads(recipe)["precision"] == "fp32"
    assert (out / "000001.png").read_bytes() == image
    assert "its precision is" in mistake(capsys, *args, "--precision", "bf16")
    (out / "recipe.json").write_text(json.dumps(json.loads(recipe) | {"precision": "auto"}))  # as "auto" was kept once
    assert ddim(capsys, *args)[0] == 0
    (out / "recipe.json").write_text("[]")
    mistake(capsys, *args)


def test_what_is_encoded_has_to_come_back(capsys, tiny_folder, tmp_path, fast):
    """Between seeds, and where noise is added, the default is bf16; where an image is encoded it is fp32."""
    image = tmp_path / "image.png"
    save_png(image, (np.arange(64).reshape(8, 8) * 3 % 256).astype(np.uint8))
    steps = ("--steps", 2, "--device", "cpu", "--out")
    run = ("interpolate", tiny_folder, "--frames", 2, "--between", 1)
    assert ddim(capsys, *run, 2, *steps, tmp_path / "seeds")[0] == 0
    assert ddim(capsys, *run, image, *steps, tmp_path / "files")[0] == 0
    assert told(tmp_path / "seeds" / "strip.png")["precision"] == "bf16"
    assert told(tmp_path / "files" / "strip.png")["precision"] == "fp32"
    for kind, precision, more in (("strength", "bf16", ()), ("label", "fp32", ("--label", 1))):
        assert ddim(capsys, "edit", tiny_folder, image, *more, *steps, tmp_path / kind)[0] == 0
        assert told(tmp_path / kind / "before-after.png")["precision"] == precision
    asked = ("--precision", "bf16", *steps, tmp_path / "asked")
    assert ddim(capsys, *run, image, *asked)[0] == 0
    assert told(tmp_path / "asked" / "strip.png")["precision"] == "bf16"


def test_a_cell_in_another_format_is_another_cell(capsys, tiny_folder, tmp_path, fast, monkeypatch):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    args = ("sample", tiny_folder, "--n", 20, "--steps", 1, "--device", "cpu", "--out", tmp_path / "data")
    assert ddim(capsys, *args)[0] == 0
    args = (
        "evaluate", tiny_folder, tmp_path / "data", "--held-out", tmp_path / "data", "--n", 10, "--steps", 2,
        "--eta", 0, "--no-sigma-hat", "--extractor", "pixels", "--device", "cpu", "--out", tmp_path / "r",
    )  # fmt: skip

    def run(*more):
        code, _, err = ddim(capsys, *args, *more)
        assert code == 0, err
        stamp = json.loads((tmp_path / "r" / "report.json").read_text())["stamp"]
        return stamp["precision"], {p.name for p in (tmp_path / "r" / "cells").glob("*.safetensors")}

    precision, first = run("--precision", "fp32")
    assert precision == "fp32"
    precision, both = run()
    assert precision == "bf16" and len(both - first) == 1
    fast(False)
    assert run() == ("fp32", both)  # found again: the default is fp32 here
