"""An evaluation that processes share: every batch made once, by whoever it falls to, and the same sets as one makes."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_evaluate import PIXELS, Calls, made_by, sampler

from ddim.files import digest
from ddim.jobs import Cell, Share, make
from ddim.jobs.evaluate import measured
from ddim.jobs.evaluate.measured import Made, collected

CELL, N = Cell("ddim", 1.0, 5, "uniform"), 30


def shared(denoise, folder, rank, world, batch_size=4, n=N):
    """What a process of `world` ends with: the set, or None where others are still at work."""
    job = make(sampler(denoise, CELL), CELL, range(n), PIXELS, batch_size=batch_size, folder=folder,
               share=Share(rank, world))  # fmt: skip
    *_, last = [None, *job]
    return last if isinstance(last, Made) else None


def tensors(folder):
    (path,) = folder.iterdir()  # the set, and nothing beside it
    return load_file(path)


@pytest.mark.parametrize("world", [2, 3, 9])
def test_the_set_is_that_of_one_process_bit_for_bit_and_each_batch_is_made_once(tmp_path, world):
    alone, one = Calls(), tmp_path / "one"
    whole = made_by(alone, CELL, one, n=N, batch_size=4)
    counts = [Calls() for _ in range(world)]
    ends = [shared(counts[rank], tmp_path / "many", rank, world) for rank in range(world)]
    assert [end is None for end in ends] == [True] * (min(world, 8) - 1) + [False] * (world - min(world, 8) + 1)
    assert [c.count for c in counts] == [5 * len(range(rank, 8, world)) for rank in range(world)]  # 8 batches
    assert sum(c.count for c in counts) == alone.count
    a, b = tensors(one), tensors(tmp_path / "many")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert (ends[-1].nfe, ends[-1].times) == (whole.nfe, whole.times)
    again = Calls()
    assert shared(again, tmp_path / "many", 0, world) is not None and again.count == 0


def test_a_killed_process_is_made_up_for_by_any_number(tmp_path, monkeypatch):
    """The second of two was killed after two batches of four; then one alone goes on, or three do."""
    monkeypatch.setattr(measured, "EVERY", 0.0)
    monkeypatch.setattr(measured, "SHARE", math.inf)
    one = made_by(Calls(), CELL, tmp_path / "one", n=N, batch_size=4)
    for name, world in (("alone", 1), ("three", 3)):
        assert shared(Calls(), tmp_path / name, 0, 2) is None
        job = make(sampler(Calls(), CELL), CELL, range(N), PIXELS, batch_size=4, folder=tmp_path / name,
                   share=Share(1, 2))  # fmt: skip
        next(job), next(job)
        job.close()
        rest = [Calls() for _ in range(world)]
        ends = [shared(rest[rank], tmp_path / name, rank, world) for rank in range(world)]
        assert sum(c.count for c in rest) == 2 * 5
        (done,) = [end for end in ends if end is not None][:1]
        assert torch.equal(done.features, one.features) and len(tensors(tmp_path / name)["features"]) == N


def test_what_was_kept_with_another_batch_size_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "EVERY", 0.0)
    monkeypatch.setattr(measured, "SHARE", math.inf)
    job = make(sampler(Calls(), CELL), CELL, range(N), PIXELS, batch_size=7, folder=tmp_path / "a")
    next(job), next(job)
    job.close()  # 14 images
    rest = Calls()
    done = made_by(rest, CELL, tmp_path / "a", n=N, batch_size=4)
    assert rest.count == 5 * 5  # of 8 batches those from place 12 on
    assert torch.equal(done.features, made_by(Calls(), CELL, tmp_path / "b", n=N).features)


def test_a_part_that_is_joined_while_another_process_looks_is_not_missed(tmp_path, monkeypatch):
    """Between listing the parts and reading them the other process has written the whole and cleared them away."""
    assert shared(Calls(), tmp_path, 0, 2) is None
    listed = measured._part_files

    def joins(path):
        monkeypatch.setattr(measured, "_part_files", listed)
        found = listed(path)
        assert shared(Calls(), tmp_path, 1, 2) is not None
        return found

    monkeypatch.setattr(measured, "_part_files", joins)
    late = Calls()
    assert shared(late, tmp_path, 0, 2) is not None and late.count == 0


def test_a_part_of_version_0_1_is_gone_on_with(tmp_path):
    """It held the first images of a set and did not say which."""
    key, rows = {"x": 1}, torch.arange(10.0)[:, None]
    pixels = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)

    def batch(at):
        return Made(rows[at], None, pixels[at])

    old = Made(rows[:6], None, pixels[:6], 0.5, 2.0, (3, 0))
    measured._write(tmp_path / f"{digest(key)}.part", old, key)
    *counts, whole = collected(tmp_path, key, 10, 3, batch)
    assert counts == [9, 10] and torch.equal(whole.features, rows)


def test_a_set_has_no_part_of_nobody(tmp_path):
    """More processes than batches: one of them has nothing to make and nothing to keep."""
    assert shared(Calls(), tmp_path, 5, 9, batch_size=20) is None
    assert not list(tmp_path.iterdir())
