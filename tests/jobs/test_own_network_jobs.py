"""Every job takes a model of one's own network: unconditional, of classes, grey, RGB, not square."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ddim import Conditions, Model, Refused, Schedule
from ddim.data import images_of
from ddim.jobs import (
    Bench,
    Cell,
    RealSets,
    complete,
    export_onnx,
    generate,
    measure_cells,
    open_job,
    switch_sets,
    tune,
    verify,
)
from ddim.metrics import Moments, extractor, frechet
from ddim.model import load
from ddim.pixels import from_uint8, to_uint8


class Own(nn.Module):
    def __init__(self, channels, classes=None, wrapped=False):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)
            self.embed = None if classes is None else nn.Embedding(classes + 1, channels)
        self.wrapped = wrapped

    def forward(self, x, t, *label, tint=None):
        out = 0.5 * self.conv(x) + (t.to(x) / 1000)[:, None, None, None]
        for own in label:
            out = out + self.embed(own)[:, :, None, None]
        out = out if tint is None else out + tint[:, :, None, None]
        return type("Output", (), {"sample": out})() if self.wrapped else out


KINDS = {
    "grey, not square": ((1, 8, 12), {}),
    "RGB of classes": ((3, 8, 8), {"num_classes": 3, "null_label": 3}),
    "RGB, no null": ((3, 6, 8), {"num_classes": 2}),
}


@pytest.fixture(params=KINDS, scope="module")
def model(request):
    shape, more = KINDS[request.param]
    own = Own(shape[0], more.get("num_classes"), wrapped=request.param.startswith("grey"))
    return Model.from_network(own, Schedule.linear(1000), shape=shape, prediction="v", **more)


def label(model):
    return "cycle" if model.num_classes else None


def test_generation_makes_what_sample_makes_and_goes_on(model, tmp_path):
    sampler, seeds = model.sampler(steps=4, eta=1.0, label=label(model)), list(range(5))
    recipe = {**sampler.recipe, "seeds": "0-4"}
    first = generate(sampler.sample, seeds, open_job(tmp_path / "job", recipe), sampler.recipe, batch_size=2)
    assert [next(first), next(first)] == [0, 2]  # then it is killed
    out = open_job(tmp_path / "job", recipe)
    assert list(generate(sampler.sample, seeds, out, sampler.recipe, batch_size=2)) == [2, 4, 5]
    assert complete(seeds, out) and verify(out) == 5
    found = np.stack([np.asarray(Image.open(out / f"00000{s}.png")) for s in seeds]).reshape(5, *model.shape[1:], -1)
    expected = to_uint8(sampler.sample(seeds))
    assert int(np.abs(found.astype(int) - expected).max()) <= 1
    with pytest.raises(Refused, match="another recipe"):
        open_job(out, {**model.sampler(steps=5, label=label(model)).recipe, "seeds": "0-4"})


def test_evaluation(model, tmp_path):
    cells = [Cell("ddim", 0.0, 3, "uniform"), Cell("dpm++2m", 0.0, 6, "trailing"), Cell("ddim", None, 3, "uniform")]
    samplers = {cell: model.sampler(label=label(model), **cell.how()) for cell in cells}
    truth = images_of(model.sample(60, steps=20, label=np.arange(60) % 2 if model.num_classes else None))
    look, told = extractor("pixels"), []
    data, how = RealSets.of(truth, None, 12, 48), {"num_classes": model.num_classes, "batch_size": 5}
    found = measure_cells(samplers, range(12), data, look, folder=tmp_path, tell=lambda *what: told.append(what), **how)
    assert [r.solver for r in found.rows] == ["ddim", "dpm++2m", "ddim"] and found.rows[2].eta == "sigma-hat"
    assert told[-1][0] == (3 + 6 + 3) * 12 and found.floor.n == 12  # network calls, each counted once an image
    made = samplers[cells[0]].sample(range(12))
    a, b = (look.features(from_uint8(p)) for p in (to_uint8(made), truth.pixels[data.reference]))
    assert found.rows[0].distance == pytest.approx(frechet(Moments.of(a), Moments.of(b)), rel=0.02)


def test_times_are_tuned(model, tmp_path):
    sampler = model.sampler(steps=3, label=label(model))
    *_, tuned = tune(sampler, others={}, latents=4, long=12, candidates=8, trials=4, batch_size=3)
    assert len(tuned.chosen.tau) == 4 and tuned.chosen.unseen == min(r.unseen for r in tuned.rivals)
    with pytest.raises(Refused, match="no model folder"):
        model.save_tau(tuned.chosen.tau, "ddim")


def test_encoding_leads_back(model):
    own = None if model.num_classes is None else [0, 1]
    x = model.sample(2, steps=6, label=own)
    z = model.encode(x, steps=6, label=own)
    assert float((model.decode(z, label=own) - x).abs().max()) < 1e-4 and z.shape == x.shape


def test_the_bench_takes_it(model):
    bench = Bench(model, 2, model.tau(2))
    assert bench.parameters == sum(p.numel() for p in model.checkpoint.network.parameters())
    for network in bench.ready(switch_sets(model.device, compiled=False)).values():
        assert bench.time(network).total > 0
    c, h, w = model.shape
    assert bench.flops() == 2 * 2 * 9 * c * c * h * w  # two images; a product and a sum for each weight and pixel


def test_it_is_exported(model, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    export_onnx(tmp_path / "onnx", model.checkpoint)
    own = None if model.num_classes is None else [0, 1]
    exported = load(tmp_path / "onnx").sample(2, steps=3, label=own)
    torch.testing.assert_close(exported, model.sample(2, steps=3, label=own), rtol=0, atol=1e-4)


def test_conditions_by_rule_in_jobs(tmp_path):
    """Batches ask the rule for their own seeds; what is measured under other conditions is another cell."""
    model = Model.from_network(Own(1), Schedule.linear(1000), shape=(1, 8, 8), prediction="v")

    class Tint:
        def __init__(self, strength):
            self.strength = strength

        def __call__(self, seeds):
            return Conditions({"tint": self.strength * torch.tensor(list(seeds), dtype=torch.float32)[:, None]})

        def __repr__(self):
            return f"Tint({self.strength})"

    cell = Cell("ddim", 0.0, 3, "uniform")
    truth, rows, look = images_of(model.sample(60, steps=5)), [], extractor("pixels")
    for strength in (0.01, 0.02, 0.01):
        samplers = {cell: model.sampler(conditions=Tint(strength), **cell.how())}
        data = RealSets.of(truth, None, 12, 48)
        found = measure_cells(samplers, range(12), data, look, folder=tmp_path, batch_size=5)
        rows.append(found.rows[0])
    assert rows[0].distance == rows[2].distance != rows[1].distance
    assert len(list(tmp_path.iterdir())) == 4  # two cells, the reference, the floor
