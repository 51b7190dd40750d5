"""Metamorphic, over drawn models: whatever is done to a Model beside asking it, the answer is the plain one."""

import copy
import pickle
import threading

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_same_as_plain import EDITS, PRECISIONS, other_module

from ddim import Schedule
from ddim.model import Model
from ddim.nets import build


def in_a_thread(model, ask):
    """Asked by two threads at once, one of them another question."""
    found = {}
    others = threading.Thread(target=lambda: ask(model, n=1, steps=1, seed=9))
    own = threading.Thread(target=lambda: found.update(answer=ask(model)))
    for thread in (others, own):
        thread.start()
    for thread in (others, own):
        thread.join()
    return found["answer"]


def under_autocast(model, ask):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return ask(model)


TREATMENTS = {
    "asked before": lambda model, ask: (ask(model), ask(model))[1],
    "deepcopy": lambda model, ask: ask(copy.deepcopy(model)),
    "pickle": lambda model, ask: ask(pickle.loads(pickle.dumps(model))),  # noqa: S301  our own
    "thread": in_a_thread,
    "autocast": under_autocast,
}


@settings(derandomize=True, deadline=None, database=None, max_examples=8)
@given(
    shape=st.sampled_from([(1, 8, 8), (3, 8, 16)]), classes=st.sampled_from([None, 2]),
    prediction=st.sampled_from(["eps", "v", "x0"]), precision=st.sampled_from(PRECISIONS),
    edits=st.lists(st.sampled_from([e for e in EDITS if e is not other_module]), max_size=2),
    treatments=st.lists(st.sampled_from(sorted(TREATMENTS)), min_size=1, max_size=3),
    n=st.integers(1, 3), steps=st.integers(1, 2), eta=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 2**63),
)  # fmt: skip
def test_an_answer_is_the_plain_one(
    shape, classes, prediction, precision, edits, treatments, n, steps, eta, seed
):  # fmt: skip
    def fresh():
        network = build("digits", shape=shape, num_classes=classes, seed=seed % 97)
        return Model.from_network(network, Schedule.cosine(50), shape=shape, prediction=prediction, num_classes=classes)

    label = {} if classes is None else {"label": 1}

    def ask(model, **other):
        return model.sample(
            **{"n": n, "steps": steps, "eta": eta, "seed": seed, "precision": precision} | label | other
        )

    plain, model = fresh(), fresh()
    ask(model)
    for edit in edits:
        edit(plain.checkpoint.network)
        edit(model.checkpoint.network)
    wanted = ask(plain)
    for name in treatments:
        assert torch.equal(TREATMENTS[name](model, ask), wanted), name
