"""What an adversary found in files and words, each by name: one line with the cause, code 2, nothing left behind."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ddim.cli import main

DEEP = "[" * 100_000 + "]" * 100_000
FAST = ["--device", "cpu", "--precision", "fp32"]
SAMPLE = ["sample", "it", "--count", "1", "--steps", "2", *FAST, "--out", "made"]
TRAIN = ["--preset", "digits", "--max-steps", "1", "--batch-size", "2", "--preview-every", "0", *FAST, "--out", "made"]
TUNE = ["tune", "it", "pictures", "--steps", "2", "--latents", "1", "--candidates", "3", "--trials", "0", *FAST]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory, tiny_folder):
    """A model, a short run of training, a job, pictures and a table of them."""
    root = tmp_path_factory.mktemp("seeds")
    shutil.copytree(tiny_folder, root / "model")
    (root / "pictures").mkdir()
    for i in range(4):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)).save(root / f"pictures/{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("DDIM_CACHE", str(root / "cache"))
        for words in (["train", "pictures", *TRAIN[:-1], "run", "--log-every", "1"],
                      ["sample", "model", "--count", "2", "--steps", "1", *FAST, "--out", "job"]):  # fmt: skip
            with pytest.raises(SystemExit) as stop:
                main(words)
            assert not stop.value.code
    return root


@pytest.fixture
def refused(seeds, tmp_path, monkeypatch, capsys):
    """What is said of a command beside a copy of one of the seeds, `it`; nothing else may be left by it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDIM_CACHE", str(seeds / "cache"))
    shutil.copytree(seeds / "pictures", tmp_path / "pictures")

    def run(words, of="model", change=lambda it: None):
        shutil.copytree(seeds / of, tmp_path / "it")
        change(tmp_path / "it")
        before = sorted(str(p) for p in tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as stop:
            main(words)
        captured = capsys.readouterr()
        said = [line for line in captured.err.splitlines() if line.startswith("ddim: ")]
        assert stop.value.code == 2 and len(said) == 1 and "\x1b" not in captured.err + captured.out, captured
        assert sorted(str(p) for p in tmp_path.rglob("*")) == before
        return said[0]

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([*TUNE, "--long", "5000"], "--long"),
        (
            ["interpolate", "it", "--between", "1", "2", "--frames", "1000000000", "--out", "made"],
            "--frames is at most",
        ),
        (["interpolate", "it", "--between", "1", "2", "3", "4", "--grid", "100000x100000", "--out", "made"], "--grid"),
        (["edit", "it", "pictures/1.png", "--seeds", "1-100000000", "--out", "made"], "more than"),
        (["train", "pictures", "--size", "99999999999999999999", *TRAIN], "--size"),
        ([*SAMPLE, "--device", "meta"], "device meta holds no numbers"),
        ([*SAMPLE, "--label", "1", "--guidance", "1e30"], "at most, got 1e+30"),
        (["train", "pictures", "--min-snr-gamma", "inf", *TRAIN], "min_snr_gamma must be a number above 0"),
        (["encode", "it", "pictures", "--out", "pictures/1.png/z"], "pictures/1.png"),
        ([*TUNE, "--out", "pictures/1.png/tau.json"], "pictures/1.png"),
        (["evaluate", "it", "pictures", "--out", "x" * 300], "too long"),
    ],
)
def test_words(refused, words, says):
    assert says in refused(words)


def other(name, value):
    def change(it):
        told = json.loads((it / name).read_text())
        for *way, last in value:
            place = told
            for key in way[:-1]:
                place = place[key]
            place[way[-1]] = last
        (it / name).write_text(json.dumps(told))

    return change


def text(name, content):
    return lambda it: (it / name).write_text(content)


def tuned(value):
    return text("tuned.json", json.dumps({"ddim/2": value}))


RESUME = ["train", "--resume", "it", "--max-steps", "3", "--device", "cpu"]


@pytest.mark.parametrize(
    ("of", "words", "change"),
    [
        ("model", ["info", "it"], text("ddim.json", DEEP)),
        ("model", ["info", "it"], other("ddim.json", [("shape", "8x8")])),
        ("model", ["info", "it"], other("ddim.json", [("labels", {"a": 1})])),
        ("model", ["info", "it"], other("unet/config.json", [("block_out_channels", None)])),
        ("model", [*SAMPLE, "--spacing", "tuned"], text("tuned.json", "[1]")),
        ("model", [*SAMPLE, "--spacing", "tuned"], tuned({"tau": "x", "model": 3})),
        ("run", RESUME, other("state/recipe.json", [("batch_size", [1])])),
        ("run", RESUME, text("state/recipe.json", "{}{}")),
        ("run", RESUME, lambda it: [torch.save([1], p) for p in (it / "state").glob("*.pt")]),
        ("run", RESUME, lambda it: [p.unlink() for p in (it / "state").glob("*.pt")]),
        ("job", ["sample", "--verify", "--out", "it"], other("manifest.json", [("images", "2")])),
        ("job", ["sample", "--verify", "--out", "it"], other("manifest.json", [("sha256", {"../x.png": "0"})])),
        ("job", ["sample", "--verify", "--out", "it"], lambda it: (it / "000001.png").write_bytes(b"")),
    ],
)
def test_files_of_ours(refused, of, words, change):
    refused(words, of, change)


@pytest.mark.parametrize("kind", ["bool", "int8", "empty", "nan"])
def test_weights_that_are_none(refused, kind):
    def change(it):
        path = it / "unet/diffusion_pytorch_model.safetensors"
        as_kind = {"bool": lambda w: w > 0, "int8": lambda w: w.to(torch.int8), "empty": lambda w: w[:0].clone(),
                   "nan": lambda w: w * float("nan")}[kind]  # fmt: skip
        save_file({name: as_kind(w) for name, w in load_file(path).items()}, path)
        told = json.loads((it / "ddim.json").read_text())
        told.pop("sha256", None)
        (it / "ddim.json").write_text(json.dumps(told))

    refused(SAMPLE, change=change)


@pytest.mark.parametrize("kind", ["image twice", "label twice", "a million names"])
def test_tables(refused, kind, tmp_path):
    cells = [{"bytes": p.read_bytes(), "path": None} for p in sorted((tmp_path / "pictures").iterdir())]
    names, columns = ["image", "label"], [cells, [0, 1, 0, 1]]
    if kind.endswith("twice"):
        i = names.index(kind.split()[0])
        names, columns = [*names, names[i]], [*columns, columns[i]]
    features = {"label": {"names": [str(i) for i in range(10**6)]}}
    about = {"huggingface": json.dumps({"info": {"features": features}})} if kind == "a million names" else None
    made = pa.Table.from_arrays([pa.array(c) for c in columns], names=names)
    pq.write_table(made.replace_schema_metadata(about), tmp_path / "x.parquet")
    said = refused(["train", "x.parquet", *TRAIN])
    assert "x.parquet" in said
