"""A disk of any size, from nothing to enough: a command ends well or in one line, and can be gone on with."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from children import hidden, refused_well
from commands import COMMANDS

ENOUGH = 65536  # KiB


def without_room(trials, disk, name, kib):
    """Whether it came to its end; then with room enough it does, and makes the same."""
    command, home, out = COMMANDS[name], trials.fresh(), disk.path / "out"
    wanted = trials.plain(name)[0]
    for path in disk.path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if kib == 0:  # not even a page
        (disk.path / "filler").write_bytes(b"x" * 4096)
    disk.size(max(kib, 4))
    (home / "tmp").mkdir()
    child = trials.nursery.run(command.argv(str(out)), home, TMPDIR=str(home / "tmp"))
    refused_well(child)
    assert not hidden(disk.path), (kib, hidden(disk.path))
    if child.code == 0:
        assert command.result(home, out) == wanted
        return True
    assert "No space left on device" in child.said or "no room" in child.said, child.said
    if kept := re.search(r"what was made is in (\S+)", child.said):
        place = Path(kept[1]) / out.name if (Path(kept[1]) / out.name).is_file() else Path(kept[1])
        assert command.result(home, place) == wanted
    disk.size(ENOUGH)
    child = trials.nursery.run(command.again(home, out) or command.argv(str(out)), home)
    refused_well(child)
    assert child.code == 0, child.said
    assert command.result(home, out) == wanted and not hidden(disk.path)
    return False


@pytest.mark.parametrize(("name", "kib"), [("train", 900), ("encode", 0)])
def test_some_size(trials, small_disk, name, kib):
    without_room(trials, small_disk, name, kib)


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
def test_every_size(trials, small_disk, name):
    kib, failed = 0, 0
    while not without_room(trials, small_disk, name, kib):
        failed += 1
        kib = kib + 4 if kib < 32 else kib * 5 // 4  # every page at first, then ever larger steps
    assert failed >= 1


@pytest.mark.faults
@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("loss", ["removed", "read-only"])
def test_the_place_for_results_is_lost_at_work(trials, small_disk, name, loss):
    command, out = COMMANDS[name], small_disk.path / "out"
    events = len(trials.plain(name)[1])
    for moment in {events // 4, events // 2, events * 3 // 4, events - 1}:
        home = trials.fresh()
        (home / "tmp").mkdir()
        how = {"stop": moment, "watched": os.path.commonpath([home, small_disk.path]), "TMPDIR": str(home / "tmp")}
        child = trials.nursery.start(command.argv(str(out)), home, **how)
        if child.stopped():
            if loss == "removed":
                shutil.rmtree(out, ignore_errors=True)
            else:
                subprocess.run(["mount", "-o", "remount,ro", str(small_disk.path)], check=False)  # not while it is busy
            child.signal(signal.SIGCONT)
        child.ended()
        refused_well(child)
        if child.code == 0 and loss == "read-only":
            assert command.result(home, out) == trials.plain(name)[0]
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk.path)], check=True)
        for path in small_disk.path.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
