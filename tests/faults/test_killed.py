"""Killed at any moment of its work, a command loses nothing it had made, and comes to the same end."""

import random
import signal
import time

import pytest
from children import hidden, refused_well
from commands import COMMANDS

from ddim.jobs import verify

AIMED = ("train", "train in latents", "train-autoencoder", "distil", "ema", "sample", "evaluate", "likelihood",
         "encode", "tune", "import", "export", "decode")  # fmt: skip


def finished(trials, command):
    """Goes on until all is done, as its user would, and holds the result against the undisturbed one."""
    home = trials.home
    for _ in range(3):
        words = command.again(home)
        if words is None:
            break
        child = trials.nursery.run(words, home)
        refused_well(child)
        assert child.code == 0, child.said
        if command.resumes:
            break
    if command.again(home) is None:  # the next command there tidies up, though it has nothing to do
        assert trials.nursery.run(command.argv(), home).code == 2
    assert command.result(home) == trials.plain(command.name)[0]
    assert not hidden(home), hidden(home)
    if command.name == "sample":
        assert verify(home / "out") == 5


def killed_at(trials, name, moments):
    """Killed before each of these events of its runs, one run after another."""
    command = COMMANDS[name]
    trials.plain(name)
    home, before = trials.fresh(), 0
    for moment in moments:
        words = command.again(home)
        if words is None:
            break
        child = trials.nursery.run(words, home, kill=moment)
        assert child.code in (0, -signal.SIGKILL), child.said
        assert command.progress(home) >= before
        before = command.progress(home)
        if child.code == 0:
            break
    finished(trials, command)


@pytest.mark.parametrize("name", ["train", "sample", "export", "distil"])
def test_killed_before_some_event(trials, name):
    events = len(trials.plain(name)[1])
    moments = random.Random(f"{name} 0")
    killed_at(trials, name, [moments.randrange(events // 2, events) + 1, moments.randrange(events) + 1])


@pytest.mark.faults
@pytest.mark.parametrize("name", AIMED)
def test_killed_before_every_event(trials, name):
    for moment in range(1, len(trials.plain(name)[1]) + 1):
        killed_at(trials, name, [moment])


@pytest.mark.faults
@pytest.mark.parametrize("name", AIMED)
def test_killed_at_random_moments_until_it_ends(trials, name):
    begun = time.monotonic()
    command = COMMANDS[name]
    trials.known.pop(name, None)
    trials.plain(name)
    took, moments = time.monotonic() - begun, random.Random(name)
    for _ in range(4):
        home, before = trials.fresh(), 0
        for _ in range(6):
            words = command.again(home)
            if words is None:
                break
            child = trials.nursery.start(words, home)
            if child.ended(patience=moments.uniform(0, took)) is not None:
                assert child.code == 0, child.said
                break
            child.signal(signal.SIGKILL)
            child.ended()
            assert command.progress(home) >= before
            before = command.progress(home)
        finished(trials, command)
