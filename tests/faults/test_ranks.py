"""Several processes: the same losses and files however many, stopped together, and not kept waiting by the dead."""

import json
import re
import signal
import socket
import time

import pytest
from children import hidden, refused_well
from commands import COMMANDS
from words import DIGITS, FAST

TRAIN = ["train", "pictures", *DIGITS, "--batch-size", "12", "--log-every", "1", "--out", "out", *FAST]
PROMPT = 30.0  # seconds from the signal to the end of all
LONG = pytest.mark.faults


def launched(trials, world, *words):
    """One child a rank, as torchrun starts them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    env = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    each = [env | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)] if world > 1 else [{}]
    return [trials.nursery.start(words, trials.home, **own) for own in each]


def losses(trials):
    lines = (trials.home / "out" / "log.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


def trained(trials, steps, *worlds):
    """The losses of a run by so many processes up to its middle, and others from there."""
    trials.fresh()
    for i, world in enumerate(worlds):
        words = ["train", "--resume", "out"] if i else TRAIN
        for child in launched(trials, world, *words, "--max-steps", str(steps * (i + 1) // len(worlds))):
            assert child.ended().code == 0, child.said
    return losses(trials)


@pytest.mark.parametrize("worlds", [(2, 3), pytest.param((4,), marks=LONG), pytest.param((4, 1, 2), marks=LONG)])
def test_any_number_of_processes_trains_as_one(trials, worlds):
    """Batches of 12 of 24 pictures, no two alike: another picture in a batch would show in its loss."""
    one, many = trained(trials, 6, 1), trained(trials, 6, *worlds)
    assert [step for step, _ in many] == [step for step, _ in one] == list(range(1, 7))
    assert [loss for _, loss in many] == pytest.approx([loss for _, loss in one], rel=1e-5)


@pytest.mark.faults
@pytest.mark.parametrize("world", [2, 4, 7])
@pytest.mark.parametrize("name", ["sample", "evaluate", "encode", "tune", "likelihood"])
def test_any_number_of_processes_makes_the_files_of_one(trials, name, world):
    command, wanted = COMMANDS[name], trials.plain(name)[0]
    trials.fresh()
    for child in launched(trials, world, *command.argv()):
        assert child.ended().code == 0, child.said
    assert command.result(trials.home) == wanted and not hidden(trials.home)


def at_work(trials, world):
    """A training without end that has taken a few steps."""
    trials.fresh()
    children = launched(trials, world, *TRAIN, "--max-steps", "1000000", "--checkpoint-every", "1000000")
    log, begun = trials.home / "out" / "log.jsonl", time.monotonic()
    while not (log.is_file() and len(log.read_text().splitlines()) >= 3):
        assert time.monotonic() - begun < 300 and all(c.code is None for c in children), [c.said for c in children]
        trials.nursery.hear()
    return children


@pytest.mark.parametrize(
    ("world", "rank", "number"),
    [(2, 1, signal.SIGTERM), *(pytest.param(3, rank, n, marks=LONG) for rank in range(3) for n in (15, 2))],
)
def test_a_signal_to_any_rank_stops_all_after_the_same_step(trials, world, rank, number):
    children = at_work(trials, world)
    begun = time.monotonic()
    children[rank].signal(number)
    codes = [child.ended().code for child in children]
    assert time.monotonic() - begun < PROMPT
    assert codes == [128 + (number if i == rank else signal.SIGTERM) for i in range(world)]
    (stopped,) = re.findall(r"stopped at step (\d+), checkpoint saved", "".join(child.err for child in children))
    assert [p.name for p in (trials.home / "out" / "state").glob("*.pt")] == [f"step-{int(stopped):08d}.pt"]
    assert losses(trials)[-1][0] == int(stopped) and not hidden(trials.home)


@pytest.mark.parametrize(("world", "rank"), [(2, 1), *(pytest.param(3, rank, marks=LONG) for rank in range(3))])
def test_a_rank_that_is_killed_keeps_nobody_waiting(trials, world, rank):
    children = at_work(trials, world)
    begun = time.monotonic()
    children[rank].signal(signal.SIGKILL)
    for i, child in enumerate(children):
        child.ended()
        if i != rank:
            refused_well(child)
            assert child.code == 2 and "another process of this training was lost; go on with --resume" in child.err
    assert time.monotonic() - begun < PROMPT
