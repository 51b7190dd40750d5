"""Pictures changed while a command is at work on them: it ends as if they were not, or is refused in one line."""

import os
import random
import shutil
import signal

import pytest
from children import hidden, refused_well
from commands import COMMANDS

READERS = ("train", "train in latents", "train-autoencoder", "evaluate", "likelihood", "tune", "measure", "reconstruct",
           "encode")  # fmt: skip
LONG = pytest.mark.faults


def swap(pictures):
    """Another picture of equal length and time under its name."""
    told = (pictures / "p00.png").stat()
    content = bytearray((pictures / "p00.png").read_bytes())
    (pictures / "p00.png").write_bytes((pictures / "p01.png").read_bytes()[: len(content)].ljust(len(content), b"\0"))
    os.utime(pictures / "p00.png", ns=(told.st_atime_ns, told.st_mtime_ns))


def remove(pictures):
    (pictures / "p01.png").unlink()


def add(pictures):
    shutil.copy(pictures / "p00.png", pictures / "p99.png")


def cut(pictures):
    (pictures / "p01.png").write_bytes((pictures / "p01.png").read_bytes()[:40])


def empty(pictures):
    shutil.rmtree(pictures)


@pytest.mark.parametrize("change", [swap, *(pytest.param(c, marks=LONG) for c in (remove, add, cut, empty))])
@pytest.mark.parametrize("name", ["train", *(pytest.param(n, marks=LONG) for n in READERS[1:])])
def test_pictures_changed_at_work(trials, name, change):
    command = COMMANDS[name]
    wanted, later = trials.plain(name)[0], random.Random(f"{name} {change.__name__}").randrange(4, 9)
    for moment in (3, later):  # of the events below OUT: the first are its way being tried, then the pictures are read
        home = trials.fresh()
        child = trials.nursery.start(command.argv(), home, stop=moment, watched=home / "out")
        if child.stopped():
            change(home / "pictures")
            child.signal(signal.SIGCONT)
        child.ended()
        refused_well(child)
        if child.code == 0 and name != "encode":  # which reads a picture when its turn comes
            assert command.result(home) == wanted, moment
        if command.verb.startswith("train") and list((home / "out/state").glob("*.pt")):
            again = trials.nursery.run([command.verb, "--resume", "out", "--max-steps", "5"], home)
            refused_well(again)
            assert again.code == 2, again.said
        assert not hidden(home / "out")
