"""Two commands on one --out, the second at a random moment of the first: both exit 0 only if both results stand."""

import itertools
import random
import signal

import pytest
from children import hidden, refused_well
from commands import COMMANDS

BLOCKED = 20.0  # seconds after which the second is taken to wait for the first


def pair(trials, first, second, moment):
    """The first stops before an event; the second runs as far as it can; then the first goes on."""
    one, two = COMMANDS[first], COMMANDS[second]
    wanted = {c.name: trials.plain(c.name)[0] for c in (one, two)}
    home = trials.fresh()
    a = trials.nursery.start(one.argv(), home, stop=moment, watched=home / "out")
    a.stopped()
    b = trials.nursery.start(two.argv(), home)
    b.ended(patience=BLOCKED)
    a.signal(signal.SIGCONT)
    a.ended()
    b.ended()
    for child, command in ((a, one), (b, two)):
        refused_well(child)
        if child.code == 0:
            found = command.result(home)
            missing = [k for k, v in wanted[command.name].items() if found.get(k) != v]
            assert not missing, (first, second, moment, missing, a.said, b.said)
    assert a.code == 0 or b.code == 0, (a.said, b.said)
    assert not hidden(home), (first, second, moment, hidden(home))


def moment_of(trials, name, source):
    """Any of its events; of one that has fewer below OUT, it ends before."""
    return source.randrange(len(trials.plain(name)[1])) + 1


@pytest.mark.parametrize(("first", "second"), [("train", "sample"), ("import", "import")])
def test_a_pair(trials, first, second):
    pair(trials, first, second, random.Random(f"{first} {second}").randrange(4) + 1)


@pytest.mark.faults
@pytest.mark.parametrize(("first", "second"), list(itertools.product(COMMANDS, repeat=2)))
def test_every_pair(trials, first, second):
    source = random.Random(f"{first} {second}")
    for _ in range(2):
        pair(trials, first, second, moment_of(trials, first, source))
