"""The commands on a model of latents: pictures in, pictures out, and each certificate under its own name."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import ddim
from conftest import save_latent
from ddim.cli.argv import main
from ddim.data import open_images
from ddim.jobs import Cadence, StudentPlan, StudentRecipe, distil_run, own_images


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("latent")
    save_latent(root / "m")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    (root / "data").mkdir()
    for i, one in enumerate(pixels):
        Image.fromarray(one).save(root / f"data/{i}.png")
    return root


def ran(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    out = capsys.readouterr()
    assert stop.value.code in (0, None), out.err
    return out.out


def test_sample_info_export(place, capsys):
    out = ran(capsys, "sample", place / "m", "--n", 2, "--steps", 3, "--out", place / "s")
    assert Image.open(place / "s/000001.png").size == (16, 16), out
    facts = ran(capsys, "info", place / "m")
    assert "latents" in facts and "2 x 8 x 8" in facts and "scale 0.18215, shift 0" in facts
    assert "LDMPipeline" in ran(capsys, "export", place / "m", place / "e")
    ran(capsys, "import", place / "m", place / "i")
    a, b = (ddim.load(place / name).sample(1, steps=2) for name in ("m", "i"))
    assert torch.equal(a, b)


def test_encode_decode_reconstruct_interpolate(place, capsys):
    out = ran(capsys, "encode", place / "m", place / "data/0.png", "--steps", 4, "--out", place / "z.safetensors")
    assert "inversion, in latents: 1 images" in out and "autoencoder alone, in pictures: 1 images" in out
    ran(capsys, "decode", place / "m", place / "z.safetensors", "--out", place / "d")
    assert Image.open(place / "d/0.png").size == (16, 16)
    out = ran(capsys, "reconstruct", place / "m", place / "data", "--steps", 4, "--n", 3, "--method", "exact")
    assert "between latents" in out and "autoencoder alone, in pictures: 3 images" in out
    out = ran(capsys, "interpolate", place / "m", "--between", 1, place / "data/1.png", "--frames", 3, "--steps", 4,
              "--out", place / "between")  # fmt: skip
    assert "in latents, its autoencoder alone" in out


def test_edit_keeps_pixels_exactly(place, capsys):
    """Pixels outside the mask come back bit for bit, though the autoencoder alone would change them."""
    mask = np.zeros((16, 16), np.uint8)
    mask[3:9, 5:10] = 255
    Image.fromarray(mask).save(place / "mask.png")
    ran(capsys, "edit", place / "m", place / "data/2.png", "--mask", place / "mask.png", "--steps", 3, "--resample", 1,
        "--seeds", "0-1", "--out", place / "painted")  # fmt: skip
    before = np.asarray(Image.open(place / "data/2.png"))
    for seed in (0, 1):
        after = np.asarray(Image.open(place / f"painted/{seed:06d}.png"))
        assert np.array_equal(after[mask == 0], before[mask == 0])
        assert (after[mask > 0] != before[mask > 0]).mean() > 0.9
    ran(capsys, "edit", place / "m", place / "data/2.png", "--strength", 0.5, "--steps", 4, "--seeds", "0-1",
        "--out", place / "rough")  # fmt: skip
    assert Image.open(place / "rough/000001.png").size == (16, 16)


def test_evaluate(place, capsys):
    ran(capsys, "evaluate", place / "m", place / "data", "--steps", 2, "--eta", 0, "--n", 10, "--held-out",
        place / "data", "--extractor", "pixels", "--reference", 12, "--out", place / "report")  # fmt: skip
    assert (place / "report/report.csv").exists() or list((place / "report").glob("*.csv"))


STUDENT = ("--to", 2, "--from", 4, "--updates", 3, "--batch-size", 4, "--precision", "fp32", "--preview-every", 2)


@pytest.mark.parametrize("data", [("data",), ("--made", 6)], ids=["with data", "without"])
def test_a_student_of_latents(place, capsys, monkeypatch, tmp_path, data):
    """It walks where its teacher does, in that autoencoder; stopped half way it goes on to the same weights."""
    monkeypatch.chdir(place)
    monkeypatch.setenv("DDIM_CACHE", str(place / "cache"))
    ran(capsys, "distil", "m", *data, *STUDENT, "--out", tmp_path / "whole")
    student, teacher = ddim.load(tmp_path / "whole"), ddim.load("m")
    assert student.student.steps == 2
    assert student.checkpoint.autoencoder.identity == teacher.checkpoint.autoencoder.identity
    assert student.sample(2).shape == (2, 3, 16, 16)
    assert list((tmp_path / "whole/previews").glob("*.png"))
    plan = StudentPlan(
        tmp_path / "halves", teacher, own_images(teacher, 6) if data[0] == "--made" else open_images("data"),
        StudentRecipe(start=4, stages=(4, 2), updates=3, batch_size=4, precision="fp32"),
    )  # fmt: skip
    made = distil_run(plan, Cadence(3, 1, 1, 0))
    next(made), next(made), made.close()
    list(distil_run(plan, Cadence(3, 1, 1, 0), resume=True))
    weights = "unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "whole" / weights).read_bytes() == (tmp_path / "halves" / weights).read_bytes()


def test_tune_evaluate_bench(place, capsys, tmp_path):
    """Times are searched in latents, images judged as pictures; what is found is used."""
    shutil.copytree(place / "m", tmp_path / "m")
    small = ("--latents", 4, "--long", 10, "--trials", 2, "--candidates", 6)
    out = ran(capsys, "tune", tmp_path / "m", place / "data", "--steps", 3, *small)
    assert "tuned" in out
    ran(capsys, "sample", tmp_path / "m", "--n", 1, "--steps", 3, "--solver", "dpm++2m", "--spacing", "tuned", "--out",
        tmp_path / "s")  # fmt: skip
    out = ran(capsys, "bench", tmp_path / "m", "--batch-size", 2, "--steps", 2, "--repeats", 1)
    assert "2 network calls" in out and "of latents; to decode one takes" in out


@pytest.mark.parametrize("words, said", [
    (("edit", "m", "data/2.png", "--mask", "wide.png", "--out", "r0"), "the mask wide.png is 16x24"),
    (("likelihood", "m", "data", "--n", 2, "--out", "r1"), "a law of latents alone"),
    (("export", "m", "o", "--to", "onnx"), "no place for an autoencoder"),
    (("info", "m", "--check", "--data", "data"), "the probe is for models of pixels"),
])  # fmt: skip
def test_refused_in_one_line(place, capsys, monkeypatch, words, said):
    monkeypatch.chdir(place)
    Image.new("L", (24, 16), 255).save("wide.png")
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    assert stop.value.code == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert said in err[-1], err
