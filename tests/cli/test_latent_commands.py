"""encode, decode, reconstruct, consistency, interpolate and edit from the outside."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import ddim, mistake

from conftest import save_tiny
from ddim import load
from ddim.cli.table2 import row_of
from ddim.pixels import read_image, save_png, to_uint8
from ddim.uses import Certificate, LatentRecipe, Latents


@pytest.fixture
def pictures(tmp_path):
    """Four 8x8 grey pictures in a folder."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        levels = (np.arange(64).reshape(8, 8) * (3 + i) + 40 * i) % 256
        save_png(folder / f"p{i}.png", levels.astype(np.uint8))
    return folder


def psnr(a, b):
    return float(10 * torch.log10(4 / (a - b).double().square().mean()))


@pytest.mark.parametrize(("method", "more"), [("exact", ()), ("bdia", ()), ("exact", ("--start", 2))])
def test_encode_then_decode_gives_the_files_back(capsys, tiny_folder, pictures, tmp_path, method, more):
    code, text, err = ddim(
        capsys, "encode", tiny_folder, pictures, "--steps", 8, "--method", method, "--label", "0,1,2,0",
        "--batch-size", 3, "--out", tmp_path / "z.safetensors", *more,
    )  # fmt: skip
    assert code == 0, err
    assert re.search("4 images: round trip (at least [0-9.]+ dB|bit for bit), ", text) and "inf dB" not in text
    assert method == "exact" or "worst residual none" in text  # nothing was solved
    z = Latents.load(tmp_path / "z.safetensors")
    assert z.names == ("p0", "p1", "p2", "p3") and z.recipe.conditions["label"] == [0, 1, 2, 0]
    code, text, err = ddim(capsys, "decode", tiny_folder, tmp_path / "z.safetensors", "--out", tmp_path / "back")
    assert code == 0 and "note" not in text, text + err
    for i in range(4):
        assert (to_uint8(read_image(tmp_path / "back" / f"p{i}.png")[None]) == to_uint8(
            read_image(pictures / f"p{i}.png")[None]
        )).all()  # fmt: skip
    assert "exists" in mistake(capsys, "encode", tiny_folder, pictures, "--out", tmp_path / "z.safetensors")
    code, text, _ = ddim(
        capsys, "decode", tiny_folder, tmp_path / "z.safetensors", "--label", 1, "--out", tmp_path / "other"
    )
    assert code == 0 and "another recipe" in text and "label" in text


def test_decode_writes_only_below_out(capsys, tiny_folder, pictures, tmp_path):
    """Names come with the file, and the file may come from anybody."""
    args = ("encode", tiny_folder, pictures, "--steps", 4, "--label", 0, "--out", tmp_path / "z.safetensors")
    assert ddim(capsys, *args)[0] == 0
    z = Latents.load(tmp_path / "z.safetensors")
    for i, name in enumerate(("../escaped", "/tmp/escaped", "..", "", "a\\b")):
        replace(z, names=(name, "b", "c", "d")).save(tmp_path / f"bad{i}.safetensors")
        assert "names must be a list of file names" in mistake(
            capsys, "decode", tiny_folder, tmp_path / f"bad{i}.safetensors", "--out", tmp_path / "bad"
        )
    assert not (tmp_path / "escaped.png").exists() and not (tmp_path / "bad").exists()
    replace(z, names=("grid", "a", "a", "a-0")).save(tmp_path / "same.safetensors")
    out = tmp_path / "same"
    assert ddim(capsys, "decode", tiny_folder, tmp_path / "same.safetensors", "--batch-size", 3, "--out", out)[0] == 0
    found = sorted(p.name for p in out.iterdir())
    assert found == ["a-0.png", "a-1.png", "a-2.png", "grid-0.png", "grid.png"]
    assert (to_uint8(read_image(out / "grid-0.png")[None]) == to_uint8(read_image(pictures / "p0.png")[None])).all()
    assert "at least 2 steps" in mistake(
        capsys, "encode", tiny_folder, pictures, "--steps", 1, "--out", tmp_path / "one.safetensors"
    )


def test_reconstruct_writes_table_and_plot(capsys, tiny_folder, pictures, tmp_path):
    code, text, err = ddim(
        capsys, "reconstruct", tiny_folder, pictures, "--steps", "5,10", "--n", 3, "--out", tmp_path / "r"
    )
    assert code == 0, err
    with (tmp_path / "r" / "reconstruct.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(r["S"], r["method"]) for r in rows] == [("5", "naive"), ("5", "exact"), ("10", "naive"), ("10", "exact")]
    model = load(tiny_folder)
    x = torch.stack([read_image(pictures / f"p{i}.png") for i in range(3)])
    y = model.decode(model.encode(x, steps=5, method="naive"))
    assert float(rows[0]["MSE [0,1]"]) == pytest.approx(float(((y - x) / 2).double().square().mean()), rel=1e-3)
    assert rows[0]["NFE"] == "10.0"
    assert all(float(r["PSNR min"]) >= 60 for r in rows if r["method"] == "exact")
    assert Image.open(tmp_path / "r" / "reconstruct.png").size[0] > 300
    assert "naive" in text and "solved" in text
    assert "naive, implicit" in mistake(capsys, "reconstruct", tiny_folder, pictures, "--method", "edict")
    assert "T = 1000" in mistake(capsys, "reconstruct", tiny_folder, pictures, "--steps", 2000)


def test_consistency_writes_a_labelled_picture(capsys, tiny_folder, tmp_path):
    code, _, err = ddim(
        capsys, "consistency", tiny_folder, "--n", 3, "--steps", "4,8", "--reference", 32, "--out", tmp_path / "c"
    )
    assert code == 0, err
    with (tmp_path / "c" / "consistency.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(float(r["eta"]), r["S"]) for r in rows] == [(0, "4"), (0, "8"), (1, "4"), (1, "8")]
    assert float(rows[1]["rms"]) < float(rows[0]["rms"]) < float(rows[3]["rms"])
    assert (tmp_path / "c" / "consistency.png").exists() and (tmp_path / "c" / "distance.png").exists()
    assert "at least 2" in mistake(capsys, "consistency", tiny_folder, "--n", 1, "--out", tmp_path / "d")
    assert "--steps" in mistake(capsys, "consistency", tiny_folder, "--steps", "", "--out", tmp_path / "d")


def test_every_command_speaks_minus_1_to_1_where_the_network_speaks_0_to_1(capsys, tmp_path, monkeypatch):
    """What a command shows of seeds 3 to 12 is what `Model.sample` makes of them; strength 0 gives the image back."""
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    folder = save_tiny(tmp_path / "m", data_range=[0.0, 1.0], clips=False, num_classes=None, prediction="v")
    model, seeds = load(folder), list(range(3, 13))
    made = model.sample(seeds=seeds, steps=4, clip=False)
    assert model.checkpoint.data_range == (0.0, 1.0)
    levels = to_uint8(made)
    assert levels.std() > 40 and (levels % 255 > 0).mean() > 0.5  # pictures in which a wrong range would show

    def run(*words):
        code, text, err = ddim(capsys, *words, "--precision", "fp32")  # as `Model.sample` without more
        assert code == 0, text + err

    def same(pixels, i):
        assert np.abs(np.asarray(pixels).reshape(8, 8).astype(int) - levels[i].reshape(8, 8)).max() <= 1

    run("sample", folder, "--seeds", "3-12", "--steps", 4, "--out", tmp_path / "s")
    run("interpolate", folder, "--between", 3, 4, "--frames", 2, "--steps", 4, "--out", tmp_path / "i")
    for i in (0, 1):
        same(Image.open(tmp_path / "s" / f"{i + 3:06d}.png"), i)
        same(Image.open(tmp_path / "i" / f"{i:06d}.png"), i)
    given = tmp_path / "s" / "000004.png"
    run("edit", folder, given, "--strength", 0, "--out", tmp_path / "e")
    same(Image.open(tmp_path / "e" / "000000.png"), 1)
    plus, minus = tmp_path / "plus", tmp_path / "minus"
    for where, i in ((plus, 0), (minus, 2)):
        where.mkdir()
        save_png(where / "a.png", levels[i])
    run(
        "edit", folder, given, "--plus", plus, "--minus", minus, "--amount", 0, "--spacing", "quadratic",
        "--out", tmp_path / "d",
    )  # fmt: skip
    same(Image.open(tmp_path / "d" / "000000.png"), 1)
    run(
        "consistency", folder, "--n", 2, "--seed", 3, "--steps", 4, "--eta", 0, "--reference", 9,
        "--out", tmp_path / "c",
    )  # fmt: skip
    apart = (made[:2] - model.sample(seeds=[3, 4], steps=9, clip=False)).square().flatten(1).mean(1).sqrt().mean()
    (row,) = csv.DictReader((tmp_path / "c" / "consistency.csv").open())
    assert float(row["rms"]) == pytest.approx(float(apart), rel=1e-4)
    (tmp_path / "s" / "grid.png").unlink()
    run(
        "evaluate", folder, tmp_path / "s", "--held-out", tmp_path / "s", "--n", 10, "--seed", 3, "--steps", 4,
        "--eta", 0, "--no-sigma-hat", "--extractor", "pixels", "--out", tmp_path / "r",
    )  # fmt: skip
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert report["rows"][0]["distance"] < 1e-4 * report["rows"][0]["diversity"]  # the same ten images, made again


def test_interpolate_between_seeds_images_and_corners(capsys, tiny_folder, pictures, tmp_path):
    out = tmp_path / "path"
    code, text, err = ddim(
        capsys, "interpolate", tiny_folder, "--between", 5, pictures / "p1.png", 7, "--frames", 5, "--steps", 6,
        "--compare", "--out", out,
    )  # fmt: skip
    assert code == 0, err
    frames = [read_image(out / f"{i:06d}.png") for i in range(5)]
    model = load(tiny_folder)
    own = model.sample(seeds=[5, 7], steps=6, clip=False).clamp(-1, 1)
    assert psnr(frames[0], own[0]) > 45 and psnr(frames[4], own[1]) > 45  # PNGs round to 1/255
    assert psnr(frames[2], read_image(pictures / "p1.png")) > 40
    with Image.open(out / "path.webp") as film:
        assert film.n_frames == 8
    assert json.loads(Image.open(out / "strip.png").text["ddim"])["path"] == ["slerp", "vp", "linear"]
    assert "linear: norm of the middle latent" in text

    square = tmp_path / "square"
    code, _, err = ddim(
        capsys, "interpolate", tiny_folder, "--between", 0, 1, 2, 3, "--grid", "3x4", "--label", "0,1,2,0",
        "--steps", 3, "--out", square,
    )  # fmt: skip
    assert code == 0, err
    assert (square / "square.png").exists()
    assert "four corners" in mistake(
        capsys, "interpolate", tiny_folder, "--between", 0, 1, "--grid", "3x3", "--out", tmp_path / "x"
    )
    assert "neither a seed nor" in mistake(
        capsys, "interpolate", tiny_folder, "--between", 0, "nothing.png", "--out", tmp_path / "x"
    )
    assert not (tmp_path / "x").exists()


@torch.no_grad()
def test_mixed_labels_between_two_classes_are_a_mix_of_embeddings(tiny):
    """At the ends the float weights give what the integer label gives; in the middle, neither."""
    x = torch.linspace(-1, 1, 2 * 64).view(2, *tiny.shape)
    ends = torch.nn.functional.one_hot(torch.tensor([0, 2]), 4).float()
    by_weight = tiny.denoiser(label=ends, clip=False)(x, 500).eps
    by_index = tiny.denoiser(label=torch.tensor([0, 2]), clip=False)(x, 500).eps
    torch.testing.assert_close(by_weight, by_index)
    middle = tiny.denoiser(label=ends.mean(0, keepdim=True).expand(2, -1), clip=False)(x, 500).eps
    assert float((middle - by_index).abs().amax((1, 2, 3)).min()) > 1e-5
    layer = tiny.checkpoint.network.unet.class_embedding
    assert not layer._forward_hooks  # nothing stays behind


def test_edits(capsys, tiny_folder, pictures, tmp_path):
    image, before = pictures / "p2.png", read_image(pictures / "p2.png")
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[:, 4:] = 255
    save_png(tmp_path / "mask.png", mask)

    def edit(name, *args):
        code, text, err = ddim(capsys, "edit", tiny_folder, image, "--steps", 4, *args, "--out", tmp_path / name)
        assert code == 0 and "root mean square change" in text, err
        assert (tmp_path / name / "before-after.png").exists()
        return [read_image(p) for p in sorted((tmp_path / name).glob("0*.png"))]

    assert psnr(edit("none", "--strength", 0, "--seeds", "0")[0], before) > 100
    half = edit("half", "--seeds", "0-1")
    assert len(half) == 2 and psnr(half[0], half[1]) < 40
    painted = edit("mask", "--mask", tmp_path / "mask.png", "--seeds", "3", "--resample", 2)[0]
    assert torch.equal(painted[..., :4], before[..., :4]) and psnr(painted[..., 4:], before[..., 4:]) < 40
    relabelled = edit("label", "--label", 1, "--from-label", 2, "--guidance", 2)
    assert len(relabelled) == 1
    assert psnr(edit("same", "--label", 2, "--from-label", 2)[0], before) > 40
    edit("direction", "--minus", pictures, "--plus", pictures, "--amount", 2)
    for words, args in {
        "belong together": ("--minus", pictures),
        "--plus is an edit of its own": ("--minus", pictures, "--plus", pictures, "--strength", 0.3),
        "--label": ("--from-label", 1),
        "0..1": ("--strength", 1.5),
    }.items():
        assert words in mistake(capsys, "edit", tiny_folder, image, *args, "--out", tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_row_says_what_carried_its_images():
    """Beside an error of 0, "solved 0.0%" would read as a contradiction: the coupled scheme made it 0."""
    x = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = Certificate(torch.full((4,), 1e-2), torch.full((4,), torch.inf), torch.zeros(4), torch.full((4,), 8),
                        torch.zeros(4, dtype=torch.int64))  # fmt: skip
    recipe = LatentRecipe((9, 5, 1, 0), "exact", "model", {}, 0.9, 1e-5, ())
    for method, coupled, word, share in (
        ("exact", [1, 1, 1, 1], "coupled", 0.0),
        ("exact", [0, 1, 0, 0], "75.0%, rest coupled", 0.75),
        ("exact", [0, 0, 0, 0], "100.0%", 1.0),
        ("bdia", [1, 1, 1, 1], "coupled", 1.0),
        ("naive", [0, 0, 0, 0], "", 1.0),
    ):
        which = torch.tensor(coupled, dtype=torch.bool)
        unsolved = tuple(which.nonzero().flatten().tolist()) if method == "exact" else ()
        row = row_of(Latents(x, replace(recipe, method=method), found, which, None, unsolved))
        assert row.cells()[row.HEAD.index("solved")] == word
        told = dict(zip(row.FILE_HEAD, row.numbers(), strict=True))
        assert (told["solved"], told["coupled"], told["MSE [0,1]"]) == (share, sum(coupled) / 4, 0.0)
