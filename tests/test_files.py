"""Files and folders appear whole or not at all; what was there stays; no two writers share a temporary name."""

import errno
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from ddim import files
from ddim.files import HOST, is_temporary, read_tensors, sweep, whole_file, whole_folder, write_json, write_tensors
from ddim.refused import Refused


def tree(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def order(monkeypatch):
    """What is synced and renamed, by name and in order."""
    seen, sync, replace, rename, names = [], os.fsync, Path.replace, Path.rename, {}
    opened = os.open

    def open_(path, *args, **kwargs):
        handle = opened(path, *args, **kwargs)
        names[handle] = Path(path).name
        return handle

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(("sync", names[handle])) or sync(handle))
    monkeypatch.setattr(Path, "replace", lambda a, b: seen.append(("name", Path(b).name)) or replace(a, b))
    monkeypatch.setattr(Path, "rename", lambda a, b: seen.append(("name", Path(b).name)) or rename(a, b))
    return seen


def test_two_writers_of_one_file_share_no_temporary_name_and_the_last_one_wins(tmp_path):
    with whole_file(tmp_path / "a") as one, whole_file(tmp_path / "a") as two:
        assert one != two and {one.parent, two.parent} == {tmp_path}
        one.write_text("one")
        two.write_text("two")
        assert not (tmp_path / "a").exists()
    assert tree(tmp_path) == {"a": "one"}  # the inner one ended first


def test_many_threads_write_whole_files(tmp_path):
    def write(i):
        with whole_file(tmp_path / "a") as partial:
            partial.write_text(str(i) * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(10), timeout=60))
    (text,) = tree(tmp_path).values()
    assert len(text) == 1000 and len(set(text)) == 1


def test_a_failure_in_the_middle_leaves_nothing_and_the_old_file_whole(tmp_path):
    for name in ("new", "old"):
        (tmp_path / "old").write_text("before")
        with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / name) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt
    with pytest.raises(Refused, match=r"a\.json cannot be written"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert tree(tmp_path) == {"old": "before"}


def test_the_bytes_are_on_the_disk_before_the_name_is(tmp_path, order):
    with whole_file(tmp_path / "a") as partial:
        partial.write_text("x")
    assert order == [("sync", partial.name), ("name", "a")]


def test_a_disk_found_full_at_the_end_is_no_success(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("before")

    def fails(code):
        def sync(handle):
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "fsync", sync)

    fails(errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"), whole_file(tmp_path / "a") as partial:
        partial.write_text("after")
    assert tree(tmp_path) == {"a": "before"}
    fails(errno.EINVAL)  # a file system that knows no sync
    with whole_file(tmp_path / "a") as partial:
        partial.write_text("after")
    assert tree(tmp_path) == {"a": "after"}


def test_what_is_written_has_the_mode_of_any_other_file(tmp_path):
    before = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a") as partial:
            partial.write_text("x")
        with whole_folder(tmp_path / "f") as folder:
            (folder / "b").write_text("x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o750


@pytest.mark.skipif(os.name != "posix", reason="a umask is of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_weights_have_it_too_though_safetensors_gives_them_another(tmp_path, mask, mode):
    """safetensors writes a file of its own, for nobody else to read, and puts it in the place of the temporary one."""
    from safetensors.torch import save_file

    kept, tensors = os.umask(mask), {"a": torch.zeros(2)}
    try:
        write_tensors(tmp_path / "a.safetensors", tensors, {})
        with whole_folder(tmp_path / "model") as place:
            (place / "unet").mkdir()
            save_file(tensors, place / "unet" / "w.safetensors")
    finally:
        os.umask(kept)
    for path in (tmp_path / "a.safetensors", tmp_path / "model" / "unet" / "w.safetensors"):
        assert path.stat().st_mode & 0o777 == mode


def test_a_new_folder_appears_at_once_and_synced(tmp_path, order):
    with whole_folder(tmp_path / "f") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a").write_text("x")
        assert [p.name for p in tmp_path.iterdir()] == [folder.name] and is_temporary(folder.name, "f")
    assert tree(tmp_path) == {"f/sub/a": "x"}
    assert order == [("sync", "sub"), ("sync", "a"), ("sync", folder.name), ("name", "f"), ("sync", tmp_path.name)]


def test_a_folder_in_a_folder_moves_what_says_here_last(tmp_path, order):
    run = tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("keep")
    (run / "index").write_text("old")
    with whole_folder(run, last=("facts", "index")) as folder:
        assert folder.parent == run  # `run` may be a mount point
        (folder / "unet").mkdir()
        for name in ("facts", "index", "unet/weights", "z"):
            (folder / name).write_text("new")
    moved = [name for what, name in order if what == "name"]
    assert moved == ["weights", "z", "facts", "index"]
    assert order.index(("sync", "weights")) < order.index(("name", "weights"))
    assert order.index(("sync", "unet"), order.index(("name", "weights"))) < order.index(("name", "facts"))
    assert tree(run) == {"mine.txt": "keep", "facts": "new", "index": "new", "unet/weights": "new", "z": "new"}


def test_a_folder_that_fails_leaves_the_old_one_as_it_was(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a").write_text("before")
    for name in ("new", "old"):
        with pytest.raises(RuntimeError), whole_folder(tmp_path / name) as folder:
            (folder / "a").write_text("half")
            raise RuntimeError
    assert tree(tmp_path) == {"old/a": "before"} and [p.name for p in tmp_path.iterdir()] == ["old"]
    with pytest.raises(Refused, match="is a file where a folder"), whole_folder(tmp_path / "old" / "a"):
        pass


def test_two_writers_of_one_folder_end_with_whole_files(tmp_path):
    """Both begin before it is there; the second to end finds it there."""
    with whole_folder(tmp_path / "f") as one:
        (one / "a").write_text("one")
        with whole_folder(tmp_path / "f") as two:
            assert two != one
            (two / "a").write_text("two")
            (two / "b").write_text("two")
    assert tree(tmp_path) == {"f/a": "one", "f/b": "two"}


def test_a_folder_that_another_writer_finishes_between_the_look_and_the_rename(tmp_path, monkeypatch):
    rename = Path.rename

    def late(path, target):
        target.mkdir()
        (target / "a").write_text("theirs")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    with whole_folder(tmp_path / "f") as folder:
        (folder / "a").write_text("ours")
    assert tree(tmp_path) == {"f/a": "ours"} and [p.name for p in tmp_path.iterdir()] == ["f"]


def test_through_a_link_the_folder_is_written_at_its_other_end(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far", target_is_directory=True)
    with whole_folder(tmp_path / "link") as folder:
        assert folder.parent == tmp_path / "far"
        (folder / "a").write_text("x")
    assert (tmp_path / "link").is_symlink() and tree(tmp_path / "far") == {"a": "x"}


def test_temporary_names_are_known_older_ones_too(tmp_path):
    with whole_file(tmp_path / "recipe.json") as partial:
        assert is_temporary(partial.name) and is_temporary(partial.name, "recipe.json")
        assert not is_temporary(partial.name, "recipe")
    for name in (".recipe.json.4711", ".recipe.json.part"):  # of version 0.1
        assert is_temporary(name, "recipe.json")
    for name in ("recipe.json", ".recipe.json", "film.part", ".recipe.json.bak"):
        assert not is_temporary(name)
    with whole_file(tmp_path / ("n" * 255)) as partial:  # as long as a name may be
        partial.write_text("x")


def test_what_killed_writers_left_is_swept_and_what_lives_is_not(tmp_path):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    names = {
        "dead": f".a.png.{HOST}-{int(child.stdout)}-01234567.part",
        "alive": f".a.png.{HOST}-{os.getpid()}-01234567.part",
        "elsewhere": f".a.png.{'f' * 8}-1-01234567.part",
        "old": f".a.png.{'f' * 8}-1-76543210.part",
        "mine": ".notes.part",
    }
    for name in names.values():
        (tmp_path / name).write_text("x")
    day = time.time() - files.STALE - 60
    for name in ("old", "mine"):
        os.utime(tmp_path / names[name], (day, day))
    sweep(tmp_path)
    left = {p.name for p in tmp_path.iterdir()}
    assert {key for key, name in names.items() if name in left} == {"alive", "elsewhere", "mine"}


def test_tensors_come_back_with_their_words(tmp_path):
    tensors = {"x": torch.arange(6).reshape(2, 3).T, "flag": torch.tensor([True, False])}
    write_tensors(tmp_path / "a.safetensors", tensors, {"about": "ü"})
    found, words = read_tensors(tmp_path / "a.safetensors")
    assert words == {"about": "ü"} and found.keys() == tensors.keys()
    assert all(torch.equal(found[k], v) for k, v in tensors.items())
    (tmp_path / "b").write_text("no tensors")
    with pytest.raises(Refused, match="is not a safetensors file"):
        read_tensors(tmp_path / "b")
    with pytest.raises(Refused, match="there is no file"):
        read_tensors(tmp_path / "c")
