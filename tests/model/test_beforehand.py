"""What is asked of a model and its sampler before anything is made: classes, a rehearsal, one call, the format."""

from dataclasses import replace

import pytest
import torch

from conftest import save_tiny
from ddim import Refused, load


def test_the_class_of_every_seed(tiny):
    """`tiny` has classes 0, 1, 2."""
    assert tiny.sampler(label="cycle").classes([7, 3, 8]) == [1, 0, 2]
    assert tiny.sampler(label={7: 2, 3: 1}).classes([3, 7]) == [1, 2]
    assert tiny.sampler(label=1).classes([3, 7]) == [1, 1]
    assert tiny.sampler().classes([3, 7]) is None


@pytest.fixture
def calls(tiny, monkeypatch):
    """The batches and times the network is called with, by its own count from 0."""
    found = []
    network = tiny.checkpoint.network
    hook = network.register_forward_pre_hook(lambda _, given: found.append((len(given[0]), given[1].tolist())))
    monkeypatch.setattr(tiny, "_prepared", {("fp32", False): network})
    yield found
    hook.remove()


def test_a_rehearsal_costs_no_call_and_sees_what_cannot_work(tiny, calls):
    tiny.sampler(steps=5, eta=1.0).rehearse()
    with pytest.raises(Refused, match="sqrt"):  # a sigma above the noise there is
        tiny.sampler(steps=5, eta=9.0).rehearse()
    assert calls == []


def test_one_call_is_the_first_of_the_walk(tiny, calls):
    tiny.sampler(tau=(600, 300, 0), label="cycle").call([4, 4, 4])
    assert calls == [(3, [599, 599, 599])]


@pytest.mark.parametrize(("fast", "auto"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_made_definite(tiny, monkeypatch, fast, auto):
    monkeypatch.setattr("ddim.engine.devices.has_fast_bf16", lambda device: fast)
    assert tiny.runs_in("auto") == auto == tiny.sampler(precision="auto").recipe["precision"]
    assert tiny.runs_in("fp64") == "fp64"


def test_times_are_kept_beside_the_weights(tmp_path):
    model = load(save_tiny(tmp_path / "m"))
    assert model.save_tau((1000, 400, 30, 0), "ab2") == tmp_path / "m" / "tuned.json"
    assert load(tmp_path / "m").tau(3, "tuned", solver="ab2") == (1000, 400, 30, 0)
    torch.save({}, tmp_path / "file.pt")
    model.checkpoint = replace(model.checkpoint, source=str(tmp_path / "file.pt"))  # a file among others
    with pytest.raises(Refused, match="no model folder"):
        model.save_tau((1000, 0), "ab2")
