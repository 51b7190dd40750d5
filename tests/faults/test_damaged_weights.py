"""Damage: random flips, cuts and holes in files of weights. Refused in one line, or the same as without."""

import io
import json
import random
import shutil

import pytest
import torch

import ddim
from conftest import save_tiny
from ddim.checkpoints import read_torch
from ddim.cli import main
from ddim.data import open_images, open_latents
from ddim.jobs.train.newest import ASIDE, load_newest, set_aside
from ddim.jobs.train.recipe import Recipe
from ddim.jobs.train.state import checkpoints, new_state, save_checkpoint
from ddim.refused import Refused

QUICK = range(40)
LONG = [pytest.param(range(40, 1500), marks=pytest.mark.faults)]
FOLDERS = [pytest.param(range(40, 300), marks=pytest.mark.faults)]  # a load takes longer than a read


def damaged(content: bytes, seed: int) -> bytes:
    """The content with a few bytes changed, a piece missing, a hole of zeros, or its end lost."""
    rng, out = random.Random(seed), bytearray(content)
    at = rng.randrange(len(out))
    kind = rng.choice(("flips", "flips", "cut", "hole", "lost"))
    if kind == "flips":
        for _ in range(rng.choice((1, 1, 3, 20))):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del out[at:]
    elif kind == "hole":
        out[at : at + 512] = bytes(len(out[at : at + 512]))
    else:
        del out[at : at + rng.randrange(1, 512)]
    return bytes(out)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b


def one_line(error: BaseException) -> None:
    said = str(error)
    assert "\n" not in said and "\x1b" not in said and len(said) < 700, said


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "state"
    state = new_state(RECIPE, "digits", (1, 8, 8), None, "cpu")
    for step in (1, 2):
        state.step = step
        save_checkpoint(folder, state)
    return folder


RECIPE = Recipe(batch_size=4, precision="fp32", lr=1e-3)


@pytest.mark.parametrize("seeds", [QUICK, *LONG])
def test_a_checkpoint_of_a_training(state, tmp_path, seeds):
    good = checkpoints(state)[-1].read_bytes()
    wanted, refused = read_torch(checkpoints(state)[-1]), 0
    for seed in seeds:
        (tmp_path / "step.pt").write_bytes(damaged(good, seed))
        try:
            assert same(read_torch(tmp_path / "step.pt"), wanted), seed
        except Refused as error:
            one_line(error)
            refused += 1
    assert refused > 0.9 * len(seeds)


@pytest.mark.parametrize("seeds", [QUICK, *LONG])
def test_a_foreign_file_without_checksums_is_refused_or_read(tmp_path, seeds):
    """Nobody can tell whether a number in it was another; but it is one line, or tensors of the right shapes."""
    buffer = io.BytesIO()
    tensors = {f"layer.{i}.weight": torch.randn(4, 4) for i in range(20)}
    torch.save(tensors, buffer, _use_new_zipfile_serialization=False)
    for seed in seeds:
        (tmp_path / "x.pt").write_bytes(damaged(buffer.getvalue(), seed))
        try:
            read_torch(tmp_path / "x.pt")
        except Refused as error:
            one_line(error)


@pytest.mark.parametrize("seeds", [QUICK[:15], *FOLDERS])
def test_the_weights_of_a_model_folder(tiny_folder, tmp_path, seeds):
    shutil.copytree(tiny_folder, tmp_path / "m")
    weights = tmp_path / "m/unet/diffusion_pytorch_model.safetensors"
    good = weights.read_bytes()
    for seed in seeds:
        weights.write_bytes(damaged(good, seed))
        with pytest.raises(Refused) as caught:
            ddim.load(tmp_path / "m")
        one_line(caught.value)


@pytest.mark.parametrize("seeds", [QUICK[:8], *FOLDERS])
@pytest.mark.parametrize(
    "name", ["ddim.json", "model_index.json", "unet/config.json", "scheduler/scheduler_config.json"]
)
def test_the_other_files_of_a_model_folder_are_refused_or_read(tiny_folder, tmp_path, name, seeds):
    shutil.copytree(tiny_folder, tmp_path / "m")
    good = (tmp_path / "m" / name).read_bytes()
    for seed in seeds:
        (tmp_path / "m" / name).write_bytes(damaged(good, seed))
        try:
            ddim.load(tmp_path / "m")
        except (Refused, OSError) as error:
            one_line(error)


def test_a_run_goes_on_from_the_newest_whole_checkpoint(state, tmp_path):
    shutil.copytree(state, tmp_path / "state")
    older, newest = checkpoints(tmp_path / "state")
    newest.write_bytes(newest.read_bytes()[:-1000])
    fresh = new_state(RECIPE, "digits", (1, 8, 8), None, "cpu")
    found = load_newest(tmp_path / "state", fresh)
    assert fresh.step == 1 and list(found) == [newest]
    (note,) = set_aside(found, fresh)
    assert newest.name in note and "damaged" in note and "step 1" in note
    assert checkpoints(tmp_path / "state") == [older] and newest.with_name(newest.name + ASIDE).exists()
    older.write_bytes(b"")
    with pytest.raises(Refused, match=r"step-00000001\.pt is empty; no other checkpoint is whole"):
        load_newest(tmp_path / "state", fresh)


def test_a_checkpoint_that_holds_something_else(state, tmp_path):
    shutil.copytree(state, tmp_path / "state")
    for wrong in ([1, 2], {"network": 5}, {"network": {}, "optimizer": 3}, {"network": {"a": torch.ones(2)}}):
        for path in checkpoints(tmp_path / "state"):
            torch.save(wrong, path)
        with pytest.raises(Refused, match="none of this run") as caught:
            load_newest(tmp_path / "state", new_state(RECIPE, "digits", (1, 8, 8), None, "cpu"))
        one_line(caught.value)


# -- caches ----------------------------------------------------------------------------------------------


def cached(data, cache):
    """A data set and its latents, and all that training takes from them."""
    images = open_images(data, cache=cache)
    own = open_latents(
        images, lambda x: torch.stack([x[:, :, ::2, ::2], x[:, :, 1::2, 1::2].abs()], 1), "by", cache=cache
    )
    return images.pixels.tolist(), images.labels.tolist(), images.report, own.rows.tolist(), own.spread


@pytest.mark.parametrize("seeds", [QUICK[:6], *FOLDERS])
@pytest.mark.parametrize(("kind", "name"), [("", "pixels.npy"), ("", "labels.npy"), ("", "report.json"),
                                            ("latents-", "rows.npy"), ("latents-", "report.json")])  # fmt: skip
def test_a_damaged_cache_heals(tmp_path, kind, name, seeds):
    for i in range(12):
        (tmp_path / f"data/{i % 2}").mkdir(parents=True, exist_ok=True)
        ddim.pixels.save_png(tmp_path / f"data/{i % 2}/{i}.png", ddim.pixels.to_uint8(ddim.noise([i], (1, 8, 8)))[0])
    wanted = cached(tmp_path / "data", tmp_path / "cache")
    (path,) = [p for p in tmp_path.glob(f"cache/*/{name}") if p.parent.name.startswith("latents-") == bool(kind)]
    good = path.read_bytes()
    for seed in seeds:
        path.write_bytes(damaged(good, seed))
        assert cached(tmp_path / "data", tmp_path / "cache") == wanted, seed
        assert path.read_bytes() == good


@pytest.mark.parametrize("seeds", [QUICK[:6], *FOLDERS])
def test_latents_half_made_are_gone_on_with_or_made_anew(tmp_path, monkeypatch, seeds):
    monkeypatch.setattr("ddim.data.latents.PART", 4 * 64)
    (tmp_path / "data").mkdir()
    for i in range(12):
        ddim.pixels.save_png(tmp_path / f"data/{i}.png", ddim.pixels.to_uint8(ddim.noise([i], (1, 8, 8)))[0])
    images, calls = open_images(tmp_path / "data", cache=tmp_path / "cache"), []

    def opened(last):
        def encode(x):
            calls.append(len(x))
            return x[:, None, :, ::2, ::2] if len(calls) <= last else 1 / 0

        calls.clear()
        own = open_latents(images, encode, "by", cache=tmp_path / "cache")
        return own.rows.tolist(), own.spread

    wanted = opened(3)
    for seed in seeds:
        shutil.rmtree(*tmp_path.glob("cache/latents-*"))
        with pytest.raises(ZeroDivisionError):
            opened(2)
        part = sorted(tmp_path.glob("cache/latents-*-parts/*"))[seed % 2]
        part.write_bytes(damaged(part.read_bytes(), seed))
        assert opened(3) == wanted, seed


# -- weights that are no numbers -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(tmp_path_factory, tiny):
    """Models: one with NaN in its weights, one whose weights are numbers too large to compute with; and inputs."""
    from ddim.checkpoints import save_checkpoint as save_folder

    root = tmp_path_factory.mktemp("broken")
    for name, value in (("nan", float("nan")), ("huge", 1e36)):
        save_tiny(root / "good" / name)
        model = ddim.load(root / "good" / name)
        with torch.no_grad():
            for p in model.checkpoint.network.parameters():
                if p.ndim == 4:
                    p.view(-1)[: 1 if name == "nan" else None] = value
        save_folder(root / name, model.checkpoint)
    (root / "data").mkdir()
    for seed in range(8):
        pixels = ddim.pixels.to_uint8(ddim.noise([seed], (1, 8, 8)))[0]
        ddim.pixels.save_png(root / "data" / f"{seed}.png", pixels)
    tiny.encode(ddim.noise([1], (1, 8, 8)), steps=2, label=1, method="naive").save(root / "z.safetensors")
    return root


COMMANDS = {
    "sample": ["sample", "MODEL", "--count", 1, "--steps", 2, "--label", 1, "--out", "OUT"],
    "decode": ["decode", "MODEL", "ROOT/z.safetensors", "--label", 1, "--out", "OUT"],
    "edit": ["edit", "MODEL", "ROOT/data/1.png", "--steps", 2, "--label", 1, "--out", "OUT"],
    "interpolate": ["interpolate", "MODEL", "--between", 1, 2, "--steps", 2, "--frames", 2, "--label", 1,
                    "--out", "OUT"],
    "tune": ["tune", "MODEL", "ROOT/data", "--steps", 2, "--latents", 2, "--long", 4, "--candidates", 4, "--trials", 1],
    "info": ["info", "MODEL", "--check", "--data", "ROOT/data"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("kind", ["nan", "huge"])
def test_weights_that_are_no_numbers_make_no_pictures(broken, tmp_path, capsys, monkeypatch, name, kind):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    places = {"MODEL": str(broken / kind), "OUT": str(tmp_path / "out"), "ROOT": str(broken)}
    words = [str(w) for w in COMMANDS[name]]
    for word, place in places.items():
        words = [w.replace(word, place) for w in words]
    before = sorted(p.name for p in (broken / kind).rglob("*"))
    with pytest.raises(SystemExit) as stop:
        main(words)
    said = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and said[-1].startswith("ddim: "), said
    assert "NaN or infinity" in said[-1] or "not finite" in said[-1]
    assert not list((tmp_path / "out").rglob("*.png"))
    assert sorted(p.name for p in (broken / kind).rglob("*")) == before


def test_weights_that_contradict_their_hash(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path / "m")
    save_tiny(tmp_path / "other", seed=5)
    shutil.copy(tmp_path / "other/unet/diffusion_pytorch_model.safetensors", tmp_path / "m/unet")
    with pytest.raises(Refused, match=r"is not what ddim\.json says .*take sha256 out"):
        ddim.load(tmp_path / "m")
    told = json.loads((tmp_path / "m/ddim.json").read_text())
    del told["sha256"]
    (tmp_path / "m/ddim.json").write_text(json.dumps(told))
    assert ddim.load(tmp_path / "m").weights_hash == ddim.load(tmp_path / "other").weights_hash
