"""Bad inputs: thousands of commands on files, words and places that are wrong, each in a child of its own.

Whatever comes in: exit 0 or 2; of a refusal exactly one `ddim:` line, and nothing left behind; no traceback, no control
byte, no code of a file that runs; memory and time within bounds. A few in the usual suite, all kinds by `make faults`.
"""

import random

import pytest
from all_cases import GROUPS
from arena import Arena
from seeds_of_cases import templates

MOST = 400  # cases of a kind in the long part
QUICK = {"json": 16, "pictures": 10, "tables": 8, "latents": 10, "yaml": 6, "places": 6, "words": 10}


@pytest.fixture(scope="module")
def arena(tmp_path_factory, nursery):
    return Arena(tmp_path_factory.mktemp("faults"), nursery)


def failures(arena, root, kind, most):
    """What is wrong with a sample of the cases of a kind, and how many they were."""
    cases = list(GROUPS[kind](root))
    chosen = random.Random(kind).sample(cases, min(most, len(cases)))
    return [words for case in chosen for words in arena.wrong(case)], len(chosen)


def test_a_few_bad_inputs_of_each_kind(arena):
    root = templates(arena, few=True)
    found = {kind: failures(arena, root, kind, most) for kind, most in QUICK.items()}
    assert sum(count for _, count in found.values()) >= 60
    assert not [words for wrong, _ in found.values() for words in wrong], "\n".join(
        words for wrong, _ in found.values() for words in wrong
    )


@pytest.mark.faults
def test_bad_inputs_of_every_kind(arena):
    root = templates(arena)
    counts, wrong = {}, []
    for kind in GROUPS:
        own, counts[kind] = failures(arena, root, kind, MOST)
        wrong += own
    print(counts)
    assert sum(counts.values()) >= 1500
    assert not wrong, f"{len(wrong)} of {counts}\n" + "\n".join(wrong)


def test_the_harness_sees_what_is_wrong(arena, monkeypatch):
    """A harness that finds nothing may be blind: each fault is made once, by a command that commits it."""
    from arena import Case, Outcome, faults

    fine = Outcome([], 2, 0.1, 1.0, "", "ddim: no such thing\n", {}, {})
    quiet = Case("x", lambda here: [])
    assert not faults(fine, quiet, 100.0)
    for change, word in (
        ({"code": 1}, "code 1"),
        ({"err": ""}, "0 lines"),
        ({"err": "ddim: a\nddim: b\n"}, "2 lines"),
        ({"err": "Traceback (most recent call last):\nddim: a\n"}, "traceback"),
        ({"out": "\x1b[31m"}, "control bytes"),
        ({"after": {"left": b""}}, "left"),
        ({"after": {"a/canary": b""}}, "RAN CODE"),
        ({"seconds": 99.0}, "99 s"),
        ({"megabytes": 5000.0}, "5000 MB"),
        ({"err": f"ddim: {'x' * 9999}\n"}, "letters"),
        ({"code": -9}, "code -9"),
        ({"code": 0, "after": {".x.part": b""}}, "hidden"),
        ({"err": "ddim: out of memory\n"}, "memory"),
    ):
        odd = Outcome(**{**vars(fine), **change})
        assert word in " ".join(faults(odd, quiet, 100.0))
    assert arena.run(lambda here: ["sample", "--count", "0", "--out", "x"]).code == 2
