"""The engine changes how a network runs, never what it computes nor the weights it was given."""

import shutil
import warnings

import pytest
import torch
from torch import nn

from ddim import engine
from ddim.engine import compiled as compilation
from ddim.engine import memory as capacity
from ddim.nets import DiffusersNetwork, build
from ddim.refused import Refused

CPU = torch.device("cpu")
needs_packing = pytest.mark.skipif(engine.why_not_packed(CPU, "fp32") is not None, reason="no oneDNN")


@pytest.fixture
def network():
    return DiffusersNetwork(build("digits", shape=(1, 8, 8), seed=3)).eval()


@pytest.fixture
def inputs():
    x = torch.linspace(-1, 1, 3 * 64).reshape(3, 1, 8, 8)
    return x, torch.tensor([0, 500, 999])


def weights(module):
    return {n: p.detach().clone() for n, p in module.state_dict().items()}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp64", "auto"])
@pytest.mark.parametrize("last", [False, True])
def test_the_loaded_weights_stay_as_they_are(network, precision, last):
    before, classes = weights(network), [type(m) for m in network.modules()]
    engine.prepared(network, precision, channels_last=last)
    after = network.state_dict()
    assert all(torch.equal(after[n], w) and after[n].dtype == w.dtype for n, w in before.items())
    assert all(p.is_contiguous() for p in network.parameters())
    assert [type(m) for m in network.modules()] == classes


@torch.no_grad()
@pytest.mark.parametrize("switches", [{}, {"packed": False}, {"channels_last": True}])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp64", 1e-5), ("bf16", 0.05)])
def test_every_switch_computes_the_same(network, inputs, switches, precision, tolerance):
    x, t = inputs
    ready = engine.prepared(network, precision, **switches)
    out = ready(x.to(engine.DTYPES[precision]), t)
    assert out.is_contiguous()
    scale = network(x, t).abs().max()
    torch.testing.assert_close(out.float(), network(x, t), atol=tolerance * float(scale), rtol=0)


@torch.no_grad()
@needs_packing
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_packed_convolution_is_the_plain_one_at_any_size(precision):
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(6, 6, 3, stride=2, dilation=2),
        nn.Conv2d(6, 8, 1, groups=2, bias=False),
    )
    ready = engine.prepared(plain, precision, channels_last=False, packed=True)
    assert [type(m) for m in ready] == [engine.PackedConv2d] * 3
    for size in ((1, 4, 9, 9), (5, 4, 16, 12), (0, 4, 9, 9)):
        x = torch.randn(size)
        tolerance = 1e-5 if precision == "fp32" else 0.03
        torch.testing.assert_close(ready(x.to(engine.DTYPES[precision])).float(), plain(x), atol=tolerance, rtol=0)


@needs_packing
def test_a_packed_network_still_has_gradients(network, inputs):
    x, t = inputs
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    engine.prepared(network, "fp32", packed=True)(mine, t).sum().backward()
    network(theirs, t).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)
    assert float(theirs.grad.abs().max()) > 0


@torch.no_grad()
@needs_packing
def test_a_packed_network_follows_weights_changed_in_place(network, inputs):
    ready = engine.prepared(network, "fp32", packed=True)
    first = ready(*inputs)
    for p in network.parameters():
        p.mul_(0.5)
    torch.testing.assert_close(ready(*inputs), network(*inputs), atol=1e-5, rtol=1e-4)
    assert float((ready(*inputs) - first).abs().max()) > 1e-3


@needs_packing
def test_what_may_do_something_else_is_not_packed():
    class Other(nn.Conv2d):
        pass

    hooked = nn.Conv2d(2, 2, 1)
    hooked.register_forward_hook(lambda m, a, out: out + 1)
    net = nn.Sequential(
        Other(2, 2, 1), hooked, nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), nn.Conv2d(2, 2, 1)
    )
    kinds = [type(m) for m in engine.prepared(net, "fp32")]
    assert kinds == [Other, nn.Conv2d, nn.Conv2d, engine.PackedConv2d]


@needs_packing
@pytest.mark.parametrize(("width", "kept"), [(32, True), (48, True), (24, False)])
def test_blocked_layouts_only_for_widths_in_blocks_of_16(width, kept):
    plain = nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 3, 3))
    assert engine.uneven(plain) is not kept
    if engine.why_not_packed(CPU, "bf16") is None:
        ready = engine.prepared(plain, "bf16")
        assert ready[1].weight.is_contiguous(memory_format=torch.channels_last) is kept
        assert isinstance(ready[1], engine.PackedConv2d) is kept
    assert isinstance(engine.prepared(plain, "fp32")[1], engine.PackedConv2d), "fp32 packs at any width"


def test_nothing_to_change_is_the_network_itself():
    network = nn.Linear(2, 2)
    assert engine.prepared(network, "fp32") is network


def test_packing_where_it_cannot_be_done_is_refused(network):
    with pytest.raises(Refused, match="not fp64 on cpu"):
        engine.prepared(network, "fp64", packed=True)


def test_auto_is_bf16_only_where_the_processor_has_it(monkeypatch):
    for found, expected in (({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32"),
                            ({"avx512_bf16": False}, "fp32")):  # fmt: skip
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found, raising=False)
        assert engine.pick_precision("auto", CPU) == expected
    with pytest.raises(Refused, match="'int4'"):
        engine.pick_precision("int4", CPU)


def test_an_older_torch_is_asked_what_it_can_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for numbers, tiles, expected in ((True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda numbers=numbers: numbers)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda tiles=tiles: tiles)
        assert engine.pick_precision("auto", CPU) == expected


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(Refused, match="'nonsense'"):
        engine.pick_device("nonsense")
    assert engine.pick_device("cpu") == CPU


@torch.no_grad()
def test_without_a_compiler_it_says_so_and_runs(network, inputs, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.warns(RuntimeWarning, match=r"uncompiled: .*C\+\+ compiler"):
        ready = engine.prepared(network, "fp32", compiled=True)
    assert torch.equal(ready(*inputs), network(*inputs))


@torch.no_grad()
def test_what_cannot_be_compiled_runs_as_it_is_and_says_why(network, inputs, monkeypatch):
    from torch._dynamo.exc import Unsupported

    calls = []

    def broken(module, **options):
        def call(*args, **kwargs):
            calls.append(1)
            raise Unsupported("no such op")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(compilation, "why_not_compiled", lambda device: None)
    ready = engine.prepared(network, "fp32", compiled=True)
    with pytest.warns(RuntimeWarning, match="Unsupported: no such op"):
        assert torch.equal(ready(*inputs), network(*inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ready(*inputs)
    assert len(calls) == 1


def test_compilation_is_for_jobs_that_repay_it(monkeypatch):
    monkeypatch.setattr(compilation, "why_not_compiled", lambda device: None)
    monkeypatch.setitem(compilation.COMPILE_SECONDS, "cpu", 100.0)
    monkeypatch.setitem(compilation.COMPILE_SAVES, "cpu", 0.1)
    # 2 s a call, a tenth saved: 0.2 s a call, so 100 s are repaid after 500 calls
    short = engine.compile_decision("auto", calls=499, seconds_a_call=2.0, device=CPU)
    long = engine.compile_decision("auto", calls=501, seconds_a_call=2.0, device=CPU)
    assert (short.compile, long.compile) == (False, True)
    assert "does not pay" in short.why
    assert "501 calls" in long.why
    assert engine.compile_decision("always", calls=1, seconds_a_call=0.1, device=CPU).compile
    assert not engine.compile_decision("never", calls=10**9, seconds_a_call=1, device=CPU).compile
    with pytest.raises(Refused, match="auto, always or never"):
        engine.compile_decision("maybe", calls=1, seconds_a_call=1.0, device=CPU)


def test_nothing_compiles_where_it_cannot(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    decision = engine.compile_decision("always", calls=10**9, seconds_a_call=1.0, device=CPU)
    assert not decision.compile
    assert "compiler" in decision.why


def test_live_bytes_counts_what_lives_at_once():
    with capacity.LiveBytes() as live:
        a = torch.zeros(1000)
        b = a + 1
        a.view(10, 100)
        del a
        c = b + 1
        del b, c
    assert live.peak == 2 * 4000
    assert live.now == 0


def test_a_call_needs_memory_in_proportion_to_its_rows():
    def call(rows):
        return torch.zeros(rows, 250) + 1  # two tensors of 1000 bytes a row

    assert capacity.call_bytes(call, 3, CPU) == 6000


@pytest.mark.parametrize(("free", "batch"), [(10_000, 2), (80_000, 16), (1e12, 64)])
def test_the_batch_found_fits_the_memory(free, batch):
    def call(rows):
        return torch.zeros(rows, 250) + 1

    # 2000 bytes a row, 60 % of what is free: 10 kB hold 3, 80 kB hold 24; powers of two
    assert capacity.fitting_batch(call, CPU, largest=64, free=int(free)) == batch


def test_an_image_too_large_is_refused_with_both_numbers():
    with pytest.raises(Refused, match="needs 8 MiB and 1 MiB"):
        capacity.fitting_batch(lambda rows: torch.zeros(rows, 2**21), CPU, free=int(2**20 / capacity.SHARE) + 1)


def test_memory_available_is_within_the_container(tmp_path):
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert capacity._container(tmp_path) == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert capacity._container(tmp_path) is None
    assert 2**20 < capacity.available_bytes(CPU) < 2**50


def test_each_process_of_torchrun_takes_its_own_accelerator(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    assert engine.pick_device("auto") == torch.device("cuda")
    for rank, index in (("0", 0), ("3", 3), ("6", 2)):
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert engine.pick_device("auto") == torch.device("cuda", index)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    assert engine.pick_device("auto") == torch.device("cuda")
