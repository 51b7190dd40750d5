"""The way out is looked at before the work, and what was computed is not lost where it fails at the end."""

import errno
import re
from pathlib import Path

import numpy as np
import pytest
from test_cli import ddim, mistake

import ddim as package
from ddim.cli import results, training
from ddim.files import whole_folder, write_json
from ddim.pixels import save_png
from ddim.uses import Latents


@pytest.fixture
def picture(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    save_png(folder / "p.png", (np.arange(64).reshape(8, 8) * 3).astype(np.uint8))
    return folder


WAYS = {
    "tune": ("{model}", "digits", "--no-save", "--steps", "3"),
    "encode": ("{model}", "{pictures}"),
    "decode": ("{model}", "{latents}"),
    "edit": ("{model}", "{pictures}/p.png"),
    "consistency": ("{model}",),
    "interpolate": ("{model}", "--between", "1", "2"),
    "reconstruct": ("{model}", "{pictures}"),
    "measure": ("{pictures}", "{pictures}"),
    "evaluate": ("{model}", "{pictures}"),
    "train": ("{pictures}",),
    "import": ("{model}",),
    "export": ("{model}",),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_bad_way_out_is_refused_before_anything_is_loaded(capsys, tmp_path, picture, tiny_folder, monkeypatch, name):
    def loaded(*args, **kwargs):
        raise AssertionError("work was done first")

    (tmp_path / "file").write_text("x")
    for what in ("load", "data.open_images", "checkpoints.open_checkpoint", "Latents.load"):
        monkeypatch.setattr(f"ddim.{what}", loaded)
    monkeypatch.setattr(training, "open_images", loaded)
    known = {"model": tiny_folder, "pictures": picture, "latents": tmp_path / "z"}
    words = [word.format(**known) for word in WAYS[name]]
    for place in (tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        out = [str(place)] if name in ("import", "export") else ["--out", str(place)]
        said = mistake(capsys, name, *words, *out)
        assert "is no folder" in said or "File name too long" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "pictures"]


def test_what_was_made_for_a_disk_that_is_full_is_kept_elsewhere(capsys, tiny_folder, picture, small_disk, tmp_path):
    z = tmp_path / "z.safetensors"
    args = ("encode", tiny_folder, picture, "--steps", 2, "--label", 0, "--method", "naive", "--out")
    assert ddim(capsys, *args, z)[0] == 0
    (small_disk.path / "full").write_bytes(b"x" * 4096)
    small_disk.size(4)
    for words, made in (
        ((*args, small_disk.path / "deep" / "z.safetensors"), ["z.safetensors"]),
        (("decode", tiny_folder, z, "--out", small_disk.path / "new"), ["grid.png", "p.png"]),
    ):  # fmt: skip
        said = mistake(capsys, *words)
        assert "No space left on device" in said
        kept = Path(re.search(r"what was made is in (\S+)", said)[1])
        assert sorted(p.name for p in kept.iterdir()) == made
        if "z.safetensors" in made:
            assert len(Latents.load(kept / "z.safetensors")) == 1
        assert not [p for p in small_disk.path.rglob("*") if p.is_file() and p.name != "full"]


def test_what_was_made_is_kept_where_another_was_faster(tmp_path):
    def write(place):
        (place / "a").write_text("mine")
        if place.parent == tmp_path:  # in the middle another command fills the folder
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "a").write_text("theirs")

    with pytest.raises(package.Refused, match=r"is not empty.*; what was made is in ") as found:
        results.in_folder(tmp_path / "out", write)
    kept = Path(str(found.value).rpartition(" ")[2])
    assert (kept / "a").read_text() == "mine" and (tmp_path / "out" / "a").read_text() == "theirs"
    (tmp_path / "x.json").write_text("theirs")
    with pytest.raises(package.Refused, match="what was made is in ") as found:
        results.in_file(tmp_path / "x.json", lambda path: write_json(path, {"a": 1}, new=True))
    assert "1" in Path(str(found.value).rpartition(" ")[2], "x.json").read_text()


def test_where_there_is_no_room_anywhere_the_first_error_is_told_and_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: (tmp_path / "t").mkdir() or str(tmp_path / "t"))

    def write(place):
        raise OSError(errno.ENOSPC, "No space left on device", str(place.parent))

    with pytest.raises(OSError, match=r"No space left on device: '.*out'$"):
        results.in_folder(tmp_path / "out", write)
    assert not list(tmp_path.iterdir())


def test_a_model_that_another_import_wrote_meanwhile_is_not_mixed_with(capsys, tiny_folder, tmp_path, monkeypatch):
    def late(path, **how):  # another import ends while this one works
        with whole_folder(path) as other:
            (other / "model_index.json").write_text("theirs")
        return whole_folder(path, **how)

    monkeypatch.setattr("ddim.checkpoints.families.diffusers.folder.whole_folder", late)
    assert "exists and is not empty" in mistake(capsys, "import", tiny_folder, tmp_path / "m")
    assert [p.name for p in (tmp_path / "m").iterdir()] == ["model_index.json"]
