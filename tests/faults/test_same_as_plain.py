"""Metamorphic: whatever is done to a Model beside asking it, what it answers is the plain answer.

Edits of weights, copies, pickles, threads, a surrounding autocast, another process: each must equal a fresh load with
the same edit, asked alone.
"""

import copy
import multiprocessing
import pickle
import threading

import pytest
import torch
from torch import nn

import ddim
from ddim import engine

CPU = torch.device("cpu")
HALF = "bf16" if engine.why_not_packed(CPU, "bf16") is None else "fp16"
PRECISIONS = ["fp32", HALF, "fp64"]


def scale_data(network):
    for p in network.parameters():
        p.data.mul_(0.9)


def one_number(network):
    last = [p for p in network.parameters() if p.ndim == 4][-1]
    last.data.view(-1)[7] += 1.0


def swap_two(network):
    """The same numbers in other places: no plain sum would notice."""
    for p in network.parameters():
        p.data.copy_(p.data.flip(0))


def loaded(network):
    network.load_state_dict({name: value * 0.9 for name, value in network.state_dict().items()})


def assigned(network):
    network.load_state_dict({name: value * 0.9 for name, value in network.state_dict().items()}, assign=True)


def renewed(network):
    for module in network.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(p.detach() * 0.9))


def no_grad_step(network):
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.01)


def other_module(network):
    network.unet.conv_out = nn.Conv2d(network.unet.conv_out.in_channels, 1, 3, padding=1, bias=False)
    nn.init.constant_(network.unet.conv_out.weight, 0.01)


EDITS = [scale_data, one_number, swap_two, loaded, assigned, renewed, no_grad_step, other_module]


def ask(model, precision="fp32"):
    return model.sample(2, steps=2, seed=3, label=1, precision=precision)


@pytest.mark.parametrize("precision", ["fp32", HALF, pytest.param("fp64", marks=pytest.mark.faults)])
@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_an_edit_after_a_sample_is_an_edit_after_a_load(tiny_folder, edit, precision):
    model, fresh = ddim.load(tiny_folder), ddim.load(tiny_folder)
    before, composed = ask(model, precision), model.sampler(steps=2, label=1, precision=precision)
    edit(model.checkpoint.network)
    edit(fresh.checkpoint.network)
    wanted = ask(fresh, precision)
    assert not torch.equal(wanted, before), "the edit must show"
    assert torch.equal(ask(model, precision), wanted)
    assert torch.equal(composed.sample([3, 4]), wanted), "a sampler composed before the edit"
    x, t = ddim.noise([1], model.shape).to(engine.DTYPES[precision]), torch.tensor([5])
    assert torch.equal(model.network(precision)(x, t), fresh.network(precision)(x, t)), "and a bare call"
    if edit is not other_module:
        assert model.weights_hash == fresh.weights_hash != ddim.load(tiny_folder).weights_hash


def test_images_encoded_after_an_edit_too(tiny_folder):
    model, fresh = ddim.load(tiny_folder), ddim.load(tiny_folder)
    z = model.encode(ask(model), steps=2, label=1)
    scale_data(model.checkpoint.network)
    scale_data(fresh.checkpoint.network)
    with pytest.warns(UserWarning, match="another network"):
        assert torch.equal(model.decode(z, label=1), fresh.decode(z, label=1))


class Dropping(nn.Module):
    """Nothing to pack in it: it runs as it is."""

    def __init__(self):
        super().__init__()
        self.line, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)

    def forward(self, x, t):
        return self.drop(self.line(x))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_mode_is_no_mode_of_sampling(precision):
    model = ddim.Model.from_network(Dropping(), ddim.Schedule.linear(), shape=(4,))
    plain = model.sample(2, steps=2, seed=3, precision=precision)
    model.checkpoint.network.train()
    assert torch.equal(model.sample(2, steps=2, seed=3, precision=precision), plain)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301  our own
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_sampled_model_and_its_sampler_can_be_copied_and_pickled(tiny_folder, copied, precision):
    model = ddim.load(tiny_folder)
    plain, sampler = ask(model, precision), model.sampler(steps=2, label=1, precision=precision)
    assert torch.equal(sampler.sample([3, 4]), plain)
    other, composed = copied(model), copied(sampler)
    scale_data(model.checkpoint.network)  # the copies are their own
    assert torch.equal(ask(other, precision), plain)
    assert torch.equal(composed.sample([3, 4]), plain)
    assert other.weights_hash == ddim.load(tiny_folder).weights_hash


def test_threads_with_other_mixes_of_classes_do_not_meet(tiny_folder):
    model = ddim.load(tiny_folder)
    mixes = [torch.eye(3)[[k, k]] * 0.7 + 0.1 for k in range(3)]
    alone = [model.sample(2, steps=4, seed=3, label=mix) for mix in mixes]
    found: dict[tuple[int, int], torch.Tensor] = {}

    def work(k):
        for again in range(4):
            found[k, again] = model.sample(2, steps=4, seed=3, label=mixes[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert all(torch.equal(made, alone[k]) for (k, _), made in found.items())
    assert not torch.equal(alone[0], alone[1])


def test_threads_with_other_shapes_and_precisions_do_not_meet(tiny_folder):
    model = ddim.load(tiny_folder)
    jobs = [(n, precision) for n in (1, 2, 3) for precision in ("fp32", HALF)]
    alone = {job: model.sample(job[0], steps=3, seed=3, label=1, precision=job[1]) for job in jobs}
    model, right = ddim.load(tiny_folder), {}

    def work(job):
        made = [model.sample(job[0], steps=3, seed=3, label=1, precision=job[1]) for _ in range(3)]
        right[job] = all(torch.equal(one, alone[job]) for one in made)

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == dict.fromkeys(jobs, True)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("around", [torch.bfloat16, torch.float16])
def test_a_surrounding_autocast_changes_nothing(tiny, around, precision):
    plain, x = ask(tiny, precision), ddim.noise([1, 2], tiny.shape)
    z = tiny.encode(x, steps=2, label=1, precision="fp32")
    with torch.autocast("cpu", dtype=around):
        assert torch.equal(ask(tiny, precision), plain)
        assert torch.equal(tiny.encode(x, steps=2, label=1, precision="fp32")[:], z[:])
        with torch.no_grad():
            *_, last = tiny.sampler(steps=2, label=1, precision=precision).trajectory([3, 4])
        assert torch.equal(last.x, plain)
        assert torch.is_autocast_enabled("cpu"), "the caller's own is as it was"


def _elsewhere(model, queue):
    torch.set_num_threads(1)
    queue.put(ask(model).tolist())


@pytest.mark.parametrize("how", ["fork", pytest.param("spawn", marks=pytest.mark.faults)])
def test_a_sampled_model_in_another_process(tiny_folder, how):
    model = ddim.load(tiny_folder)
    plain = ask(model)
    context = multiprocessing.get_context(how)
    queue = context.Queue()
    process = context.Process(target=_elsewhere, args=(model, queue))
    process.start()
    try:
        assert queue.get(timeout=60) == plain.tolist()
    finally:
        process.join(60)
