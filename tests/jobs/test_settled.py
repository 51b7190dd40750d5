"""`auto` is settled once a job: by measuring at first, by the job's recipe ever after."""

import json

import pytest
import torch

from ddim.engine import compiled as compilation
from ddim.jobs import Share, settle, share_of
from ddim.jobs import settled as module

CPU = torch.device("cpu")


class Calls(list):
    """A network call that remembers how many rows it was asked for; 2000 bytes a row."""

    def __call__(self, rows):
        self.append(rows)
        return torch.zeros(rows, 250) + 1


def asked(tmp_path, batch_size, compile, *, n=64, calls_an_image=20, **options):
    call = Calls()
    found = settle(batch_size, compile, out=tmp_path, n=n, calls_an_image=calls_an_image, call=call, device=CPU,
                   **options)  # fmt: skip
    return found, call


def test_given_values_are_taken_without_a_call(tmp_path):
    found, call = asked(tmp_path, 8, "never", calls_an_image=10**6)
    assert (found.batch, found.compiled, found.notes) == (8, False, ())
    assert call == []


def test_a_short_job_is_not_even_measured(tmp_path):
    found, call = asked(tmp_path, 8, "auto")  # 8 batches of 20 calls
    assert not found.compiled and call == []


@pytest.mark.parametrize(("saves", "compiled"), [(1e-9, False), (1e9, True)])
def test_a_long_job_compiles_if_that_is_repaid(tmp_path, monkeypatch, saves, compiled):
    monkeypatch.setattr(compilation, "why_not_compiled", lambda device: None)
    monkeypatch.setitem(compilation.COMPILE_SAVES, "cpu", saves)
    found, call = asked(tmp_path, 8, "auto", calls_an_image=1000)
    assert found.compiled is compiled
    assert call == [8, 8], "one call to warm up, one to measure, at the job's own batch"
    assert "8000 calls" in found.notes[0]


def test_the_batch_is_the_largest_that_fits_and_no_larger_than_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr("ddim.engine.memory.available_bytes", lambda device: 80_000)  # 60 % of it holds 24 rows
    assert asked(tmp_path, "auto", "never")[0].batch == 16
    assert asked(tmp_path, "auto", "never", n=5)[0].batch == 4


def test_a_job_that_goes_on_keeps_what_its_recipe_says(tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps({"batch": 7, "compiled": True}))
    found, call = asked(tmp_path, "auto", "auto", calls_an_image=10**6)
    assert (found.batch, found.compiled) == (7, True) and call == []
    assert asked(tmp_path, 5, "never")[0][:2] == (5, False), "what is asked for outright is never replaced"


def test_other_processes_wait_for_the_first_one(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    with pytest.raises(ValueError, match="has not begun"):
        asked(tmp_path, "auto", "auto", share=Share(1, 2))
    (tmp_path / "recipe.json").write_text(json.dumps({"batch": 3}))
    assert asked(tmp_path, "auto", "auto", share=Share(1, 2))[0][:2] == (3, False)


def test_a_short_job_waits_for_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    assert asked(tmp_path, 8, "auto", share=Share(1, 2))[0][:2] == (8, False)


def test_a_batch_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1 or auto, got 0"):
        asked(tmp_path, 0, "never")


@pytest.mark.parametrize(
    ("environ", "share"),
    [({}, (0, 1)), ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1)), ({"RANK": "2", "WORLD_SIZE": "3"}, (2, 3)),
     ({"LOCAL_RANK": "x"}, (0, 1))],
)  # fmt: skip
def test_which_share_of_the_job_is_this_process_s(environ, share):
    assert share_of(environ) == share


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"RANK": "1"}, "RANK is '1' but WORLD_SIZE is not set"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is '2' but RANK is not set"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK = 2 of 2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK must be a whole number >= 0, got '-1'"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK .* got 'one'"),
        ({"RANK": "0", "WORLD_SIZE": "1.5"}, "WORLD_SIZE .* got '1.5'"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK .* got ''"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE must be at least 1, got 0"),
    ],
)
def test_a_share_that_makes_no_sense_is_refused(environ, says):
    with pytest.raises(ValueError, match=says):
        share_of(environ)
