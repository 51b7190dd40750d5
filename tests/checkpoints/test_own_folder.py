"""A network of one's own, saved and loaded back into the module: same answers, same identity, or a clear refusal."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import ddim
from ddim import Model, Refused, Schedule

SCHEDULE = Schedule.cosine(50)


class Mine(nn.Module):
    def __init__(self, width=4, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.a, self.b = nn.Conv2d(3, width, 3, padding=1), nn.Conv2d(width, 3, 1)
            self.tied = self.b  # one tensor under two names
            self.embed = nn.Embedding(3, 3)
        self.register_buffer("scale", torch.tensor(0.5))

    def forward(self, x, t, label):
        return self.b(self.a(x).relu()) * self.scale + self.embed(label)[:, :, None, None]


FACTS = {"shape": (3, 6, 10), "prediction": "v", "num_classes": 2, "null_label": 2, "labels": ["cat", "dog"],
         "data_range": (0.0, 1.0), "clips": True, "time_scale": 0.5}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    model = Model.from_network(Mine(), SCHEDULE, **FACTS)
    model.save(tmp_path / "mine")
    return model, tmp_path / "mine"


def test_it_comes_back_as_it_was(saved):
    model, folder = saved
    again = ddim.load(folder, network=Mine(seed=1))
    how = {"steps": 5, "label": [0, 1], "guidance": 2.0}
    assert torch.equal(again.sample(2, **how), model.sample(2, **how))
    assert (again.checkpoint.identity, again.shape, again.schedule) == (model.checkpoint.identity, (3, 6, 10), SCHEDULE)
    assert (again.checkpoint.labels, again.num_classes, again.null_label) == (("cat", "dog"), 2, 2)
    assert again.checkpoint.notes == () and again.reading == model.reading


def test_times_tuned_for_it_are_kept_beside_it(saved):
    _, folder = saved
    ddim.load(folder, network=Mine()).save_tau((50, 20, 0), "ddim")
    assert ddim.load(folder, network=Mine()).tau(2, "tuned") == (50, 20, 0)


def test_it_may_be_saved_again_and_a_signal_too(saved, tmp_path):
    _, folder = saved
    ddim.load(folder, network=Mine()).save(tmp_path / "twice")
    a, b = (load_file(f / "network.safetensors") for f in (folder, tmp_path / "twice"))
    assert all(torch.equal(a[k], b[k]) for k in a) and a.keys() == b.keys()
    net = nn.Sequential(nn.Linear(7, 7))
    net.forward = lambda x, t: net[0](x)
    one = Model.from_network(net, SCHEDULE, shape=(2, 7), prediction="x0")
    one.save(tmp_path / "signal")
    other = nn.Sequential(nn.Linear(7, 7))
    other.forward = lambda x, t: other[0](x)
    assert torch.equal(ddim.load(tmp_path / "signal", network=other).sample(3, steps=4), one.sample(3, steps=4))


def test_without_its_network_it_says_whose_weights_these_are(saved):
    _, folder = saved
    with pytest.raises(Refused, match=r"holds the weights of a .*test_own_folder\.Mine.*network=Mine\(\.\.\.\)"):
        ddim.load(folder)


def test_another_network_is_refused_by_what_differs(saved):
    _, folder = saved
    with pytest.raises(Refused, match=r"3 differ, first a\.bias: float32 \(4,\) saved, float32 \(5,\) here"):
        wide = Mine(5)
        wide.b = wide.tied = nn.Conv2d(4, 3, 1)
        wide.extra = nn.Parameter(torch.zeros(1))
        ddim.load(folder, network=wide)
    with pytest.raises(Refused, match=r"first a\.bias: float32 \(4,\) saved, float64 \(4,\) here"):
        ddim.load(folder, network=Mine().double())
    with pytest.raises(Refused, match=r"torch\.nn\.Module"):
        ddim.load(folder, network=lambda x, t: x)


def test_another_class_with_the_same_weights_is_noted(saved):
    class Renamed(Mine):
        pass

    (note,) = ddim.load(saved[1], network=Renamed()).checkpoint.notes
    assert "Mine" in note and "Renamed" in note


@pytest.mark.parametrize("what", ["weights", "facts", "shape", "no facts"])
def test_a_damaged_folder_is_refused(saved, what):
    _, folder = saved
    facts = json.loads((folder / "ddim.json").read_text())
    if what == "weights":
        state = load_file(folder / "network.safetensors")
        state["scale"] = state["scale"] * 2
        save_file(state, folder / "network.safetensors")
    elif what == "no facts":
        (folder / "ddim.json").unlink()
    else:
        facts |= {"clips": None} if what == "facts" else {"shape": [3, 0]}
        (folder / "ddim.json").write_text(json.dumps(facts))
    says = {
        "weights": "other weights than",
        "facts": "lacks clips",
        "shape": "whole numbers from 1",
        "no facts": "but no",
    }
    with pytest.raises(Refused, match=says[what]):
        ddim.load(folder, network=Mine())


def test_what_a_network_is_of_no_use_for(saved, tmp_path, tiny_folder):
    model, folder = saved
    with pytest.raises(Refused, match="nothing is overwritten"):
        model.save(folder)
    with pytest.raises(Refused, match="load it without `network`"):
        ddim.load(tiny_folder, network=Mine())
    torch.save(Mine().state_dict(), tmp_path / "own.pt")
    for more in ({}, {"network": Mine()}):
        with pytest.raises(Refused, match=r"ddim\.Model\.from_network\(network, schedule"):
            ddim.load(tmp_path / "own.pt", **more)
    with pytest.raises(FileNotFoundError):
        ddim.load("runs/mine", network=Mine())
    with pytest.raises(Refused, match="give no settings"):
        ddim.load(folder, network=Mine(), config={"shape": [3, 6, 10]})


class Counting(Mine):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state): ...


def test_a_state_that_is_not_of_tensors_is_refused():
    with pytest.raises(Refused, match="_extra_state in the network's state_dict is a dict"):
        Model.from_network(Counting(), SCHEDULE, **FACTS)


def test_models_of_our_own_and_diffusers_networks_become_diffusers_folders(tiny, tmp_path):
    from diffusers import DDIMPipeline

    tiny.save(tmp_path / "tiny")
    again = ddim.load(tmp_path / "tiny")
    assert torch.equal(again.sample(2, steps=3, label=1), tiny.sample(2, steps=3, label=1))
    unet = ddim.nets.build("digits", shape=(1, 8, 16), seed=3)
    model = Model.from_network(unet, SCHEDULE, shape=(1, 8, 16), prediction="v")
    model.save(tmp_path / "unet")
    assert torch.equal(ddim.load(tmp_path / "unet").sample(2, steps=3), model.sample(2, steps=3))
    assert (tmp_path / "unet" / "model_index.json").is_file() and DDIMPipeline.from_pretrained(tmp_path / "unet")
