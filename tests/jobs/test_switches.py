"""What a bench measures with: sets of switches, and the machine's own speed."""

import torch

from ddim.jobs.bench import matmul_flops, switch_sets


def test_the_first_set_is_the_network_as_it_was_loaded(monkeypatch):
    for fast in (False, True):
        monkeypatch.setattr("ddim.engine.has_fast_bf16", lambda device, fast=fast: fast)
        sets = switch_sets(torch.device("cpu"), compiled=True)
        assert next(iter(sets.items())) == ("fp32", {"precision": "fp32", "packed": False})
        assert {s["precision"] for s in sets.values()} == ({"fp32", "bf16"} if fast else {"fp32"})
        assert sum("compiled" in s for s in sets.values()) == (2 if fast else 1)


def test_the_matrix_product_counts_two_operations_a_term(monkeypatch):
    monkeypatch.setattr("ddim.jobs.bench._seconds", lambda run, device: 2.0)
    assert matmul_flops(torch.float32, torch.device("cpu"), size=10, repeats=1) == 2 * 10**3 / 2.0
