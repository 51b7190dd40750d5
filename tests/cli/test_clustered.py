"""`--on ray` of every command that has it: what is sent can be sent, and what comes back is what one process makes."""

import pickle
from types import SimpleNamespace

import cloudpickle  # what Ray sends functions with
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import ddim
from ddim.cli import main
from ddim.jobs import scored
from ddim.refused import Refused

FAST = ("--device", "cpu", "--precision", "fp32")


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A cluster of one worker that has nothing but what it is sent; and what it was asked."""
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    asked = []

    def on(address, *, gpu=False):
        def over(make, items):
            sent = cloudpickle.dumps(make)
            for item in items:
                asked.append(address)
                make_there, item_there = pickle.loads(sent), pickle.loads(cloudpickle.dumps(item))  # noqa: S301  our own
                yield pickle.loads(pickle.dumps(make_there(item_there)))  # noqa: S301

        return over

    monkeypatch.setattr(ddim.jobs, "on_ray", on)
    return asked


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    for i in range(20):
        levels = np.random.default_rng(i).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(levels).save(tmp_path / f"images/{i:02}.png")
    return tmp_path / "images"


def run(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(w) for w in words])
    assert stop.value.code == 0


def both(tmp_path, elsewhere, calls, *words):
    """Where one process puts it, and where a cluster does, after so many calls of its worker."""
    run(*words, "--out", tmp_path / "one")
    assert not elsewhere
    run(*words, "--out", tmp_path / "many", "--on", "ray")
    assert len(elsewhere) == calls
    return tmp_path / "one", tmp_path / "many"


def test_sample(tmp_path, tiny_folder, elsewhere):
    words = ("sample", tiny_folder, "--count", 5, "--steps", 2, "--batch-size", 2, *FAST)
    one, many = both(tmp_path, elsewhere, 3, *words)
    assert {p.name: p.read_bytes() for p in one.iterdir()} == {p.name: p.read_bytes() for p in many.iterdir()}


def test_evaluate(tmp_path, tiny_folder, elsewhere, images):
    words = ("--count", 10, "--steps", "2,3", "--eta", 0, "--no-sigma-hat", "--extractor", "pixels", "--batch-size", 4)
    one, many = both(tmp_path, elsewhere, 2 * 3 + 2 * 3, "evaluate", tiny_folder, images, *words, *FAST)
    assert len(list((one / "cells").iterdir())) == 4
    for cell in (one / "cells").iterdir():
        a, b = load_file(cell), load_file(many / "cells" / cell.name)
        assert all(torch.equal(a[name], b[name]) for name in a)


def test_encode(tmp_path, tiny_folder, elsewhere, images):
    words = ("encode", tiny_folder, images, "--steps", 2, "--method", "naive", "--batch-size", 8, "--device", "cpu")
    a, b = map(load_file, both(tmp_path, elsewhere, 3, *words))
    assert a.keys() == b.keys() and all(torch.allclose(a[name], b[name], 0, 0, equal_nan=True) for name in a)


def test_tune(tmp_path, tiny_folder, elsewhere, images, capsys):
    words = ("--steps", "2,3", "--latents", 2, "--long", 8, "--candidates", 6, "--trials", 2, "--no-save", *FAST)
    one, many = both(tmp_path, elsewhere, 2, "tune", tiny_folder, images, *words)
    assert one.read_bytes() == many.read_bytes()
    assert capsys.readouterr().out.count("chosen: ") == 4  # told here, wherever it was found


def test_tune_by_images(tmp_path, tiny_folder, elsewhere, images):
    words = ("--guidance", "auto", "--steps", 1, "--count", 10, "--extractor", "pixels", "--trials", 0, "--no-save")
    run("tune", tiny_folder, images, *words, *FAST, "--out", tmp_path / "one")
    run("tune", tiny_folder, images, *words, *FAST, "--out", tmp_path / "many", "--on", "ray")
    one, many = ((tmp_path / name / "guidance.json").read_text().splitlines() for name in ("one", "many"))
    assert [a for a, b in zip(one, many, strict=True) if a != b and "second" not in a] == [] and elsewhere


def test_likelihood(tmp_path, tiny_folder, elsewhere, images, monkeypatch):
    def cheap(denoise, x, *, tolerance, seeds, **how):
        said = (denoise(x.float(), 500).x0.double() * x).flatten(1).sum(1) + torch.tensor(seeds) % 7 + tolerance
        return SimpleNamespace(log_prob=said, standard_error=said / 10, probes=torch.full_like(said, 2))

    monkeypatch.setattr(scored, "likelihood", cheap)
    words = ("--count", 4, "--batch-size", 2, "--device", "cpu")
    one, many = both(tmp_path, elsewhere, 2, "likelihood", tiny_folder, images, *words)
    for name in ("likelihood.csv", "likelihood.json"):
        assert (one / name).read_bytes() == (many / name).read_bytes()


def test_a_cluster_that_is_not_there(tmp_path, tiny_folder, monkeypatch, capsys):
    def on(address, *, gpu=False):
        raise Refused(f"no Ray cluster answers at {address}")

    monkeypatch.setattr(ddim.jobs, "on_ray", on)
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(tiny_folder), "--out", str(tmp_path / "out"), "--on", "ray://127.0.0.1:1"])
    assert stop.value.code == 2 and not (tmp_path / "out").exists()
    assert capsys.readouterr().err.splitlines() == ["ddim: no Ray cluster answers at ray://127.0.0.1:1"]
