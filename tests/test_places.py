"""Places for results: looked at before the work, given to one writer, and never written over."""

import errno
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from ddim.files import HOST, Hold, free_file, free_folder, reach, sweep, whole_file, whole_folder, write_tensors
from ddim.refused import Refused


def names(folder):
    return sorted(p.name for p in folder.rglob("*"))


def test_a_way_that_leads_nowhere_is_refused_before_any_work_and_nothing_is_left(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("x")
    before = names(tmp_path)
    for look, place, words in (
        (free_file, "file/x.json", "is no folder"), (free_folder, "file/x", "is no folder"),
        (free_file, "file", "nothing is overwritten"), (free_folder, "full", "is not empty"),
        (free_folder, "file", "is not empty"), (free_file, "n" * 300, "name too long"),
        (free_file, f"new/{'n' * 300}/x", "name too long"), (free_folder, f"new/{'n' * 300}", "name too long"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=f"(?i){words}"):
            look(tmp_path / place)
    assert free_file(tmp_path / "new/deep/x.json") and free_folder(tmp_path / "new/deep")
    assert names(tmp_path) == before


def test_a_way_that_was_being_tried_when_its_writer_was_killed_is_swept_by_the_next(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".way.{HOST}-{gone.pid}-00000000.part" / "out").mkdir(parents=True)
    reach(tmp_path / "out", folder=True)
    assert names(tmp_path) == []


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("pathlib.Path.mkdir", denied)
    with pytest.raises(Refused, match="Permission denied"):
        free_folder(tmp_path / "new")


def test_a_new_file_is_never_written_over_one_that_came_meanwhile(tmp_path, monkeypatch):
    for links in (True, False):
        if not links:
            monkeypatch.setattr("pathlib.Path.hardlink_to", lambda *_: (_ for _ in ()).throw(PermissionError()))
        path = tmp_path / f"{links}" / "z"
        with pytest.raises(Refused, match="nothing is overwritten"), whole_file(path, new=True) as partial:
            partial.write_text("mine")
            path.write_text("theirs")
        assert path.read_text() == "theirs" and names(path.parent) == ["z"]
        with whole_file(tmp_path / f"{links}" / "y", new=True) as partial:
            partial.write_text("mine")
        assert names(path.parent) == ["y", "z"]


@pytest.mark.parametrize("there", [False, True])
def test_of_two_writers_of_one_new_folder_the_second_is_refused_and_mixes_nothing(tmp_path, there):
    if there:
        (tmp_path / "f").mkdir(mode=0o750)
    with pytest.raises(Refused, match="not empty"), whole_folder(tmp_path / "f", new=True) as one:
        (one / "a").write_text("one")
        (one / "b").write_text("one")
        with whole_folder(tmp_path / "f", new=True) as two:
            (two / "a").write_text("two")
    assert names(tmp_path) == ["a", "f"] and (tmp_path / "f" / "a").read_text() == "two"
    if there:  # the user's own folder, not one in its place
        assert (tmp_path / "f").stat().st_mode & 0o777 == 0o750


def test_many_writers_of_one_new_folder_one_wins(tmp_path):
    won, gate = [], threading.Barrier(8)

    def write(i):
        try:
            with whole_folder(tmp_path / "f", new=True) as place:
                for name in "abc":
                    (place / name).write_text(str(i))
                gate.wait(30)
        except Refused:
            return
        won.append(i)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert len(won) == 1 and {(tmp_path / "f" / n).read_text() for n in "abc"} == {str(won[0])}
    assert names(tmp_path) == ["a", "b", "c", "f"]


def test_a_killed_writer_of_a_folder_leaves_no_copy_once_another_writes_there(tmp_path):
    program = (
        "import os, sys; from ddim.files import whole_folder\n"
        "with whole_folder(sys.argv[1]) as f: (f / 'weights').write_text('x'); os.kill(os.getpid(), 9)"
    )
    for name in ("model", "other"):
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], check=False)
    assert len(list(tmp_path.iterdir())) == 1  # the second swept what the first left
    with whole_folder(tmp_path / "model", new=True) as place:
        (place / "weights").write_text("y")
    assert names(tmp_path) == ["model", "weights"]


def test_a_clock_days_ahead_takes_no_living_writer_for_dead(tmp_path, monkeypatch):
    build = tmp_path / f".cache.{HOST}-{os.getpid()}-01234567.part"
    elsewhere = tmp_path / f".cache.{'f' * 8}-1-01234567.part"
    for folder in (build, elsewhere):
        folder.mkdir()
    ahead = time.time() + 2 * 86400
    monkeypatch.setattr(time, "time", lambda: ahead)
    sweep(tmp_path)
    assert build.exists() and elsewhere.exists()
    old = ahead - 4 * 86400
    for folder in (build, elsewhere):
        os.utime(folder, (old, old))
    sweep(tmp_path)  # this machine's writer lives, however long ago it last wrote
    assert build.exists() and not elsewhere.exists()


def test_a_hold_can_be_waited_for(tmp_path):
    first, order = Hold(tmp_path), []

    def second():
        hold = Hold(tmp_path, wait=True)
        order.append("second")
        hold.release()

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.05)
    order.append("first")
    first.release()
    thread.join(30)
    assert order == ["first", "second"]


def save_torch(path):
    with whole_file(path) as partial, partial.open("wb") as file:
        torch.save({"a": torch.zeros(10**6)}, file)


def save_numpy(path):
    with whole_file(path) as partial, partial.open("wb") as file:
        file.write(np.zeros(10**6).tobytes())


@pytest.mark.parametrize("save", [
    save_torch, save_numpy, lambda path: write_tensors(path, {"a": torch.zeros(10**6)}, {}),
])  # fmt: skip
def test_a_full_disk_is_one_error_in_everybodys_writer_and_nothing_is_left(small_disk, save):
    small_disk.size(64)
    path = small_disk.path / "a.bin"
    with pytest.raises(OSError, match=r"No space left on device: .*/a\.bin'") as found:
        save(path)
    assert found.value.errno == errno.ENOSPC and not list(small_disk.path.iterdir())
    with pytest.raises(OSError, match="No space left"), whole_folder(small_disk.path / "f") as folder:
        save(folder / "a.bin")
    assert not list(small_disk.path.iterdir())
