"""Training on every continuous process: what a run's folder says, what it is good for, and that it goes on bitwise."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import ddim
from ddim.checkpoints import Checkpoint
from ddim.cli import main
from ddim.data import Batch
from ddim.jobs import Denoising, Recipe, fit
from ddim.jobs.train.state import checkpoints, state_of
from ddim.process import USUAL, TimeLabel, draw_times, generator, noise, process_of
from ddim.solve import SOLVERS

FIXED = ["--preset", "digits", "--batch-size", "4", "--warmup", "2", "--precision", "fp32", "--device", "cpu",
         "--preview-every", "0", "--labels", "ignore"]  # fmt: skip
# diffusers' class for each, and the label of a network at the process's noisiest time
SCHEDULERS = {
    "vp": ("ScoreSdeVpScheduler", 999.0),
    "subvp": (None, 999.0),
    "ve": (None, 50.0),  # ScoreSdeVeScheduler's pipeline shows images from 0 to 1; ours run from -1
    "edm": ("EDMEulerScheduler", math.log(80) / 4),
    "flow": ("FlowMatchEulerDiscreteScheduler", 1000.0),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for i in range(10):
        pixels = (np.arange(64).reshape(8, 8) * (i + 1) % 256).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDIM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield folder


def train(data, run, steps, *options):
    with pytest.raises(SystemExit) as stop:
        main(["train", str(data), "--out", str(run), "--max-steps", str(steps), *FIXED, *options])
    return stop.value.code


@pytest.fixture(scope="module", params=SCHEDULERS)
def run(request, data, tmp_path_factory):
    """A run of 4 steps on each process."""
    place = tmp_path_factory.mktemp(request.param) / "run"
    assert train(data, place, 4, "--process", request.param) == 0
    return request.param, place


def test_the_folder_says_the_process(run):
    kind, place = run
    told = json.loads((place / "ddim.json").read_text())
    process = process_of(kind)
    assert told["process"] == {"kind": kind, **process.numbers} and told["prediction"] == USUAL[kind].prediction
    scheduler, label = SCHEDULERS[kind]
    path = place / "scheduler/scheduler_config.json"
    assert (json.loads(path.read_text())["_class_name"] if path.exists() else None) == scheduler
    k = ddim.load(place).checkpoint
    assert k.process == process and "alpha_bar" not in told
    assert float(k.time(torch.tensor([process.T], dtype=torch.float64))) == pytest.approx(label, rel=1e-6)
    with pytest.raises(ddim.Refused, match=r"continuous process .*works on a schedule"):
        _ = k.schedule


@pytest.mark.parametrize("run", [kind for kind, (scheduler, _) in SCHEDULERS.items() if scheduler], indirect=True)
def test_a_scheduler_of_diffusers_says_the_same(run):
    """Without ddim.json, what diffusers has a class for is read as it was trained."""
    _, place = run
    told = place / "ddim.json"
    content = told.read_text()
    whole = ddim.load(place).checkpoint
    try:
        told.unlink()
        found = ddim.load(place).checkpoint
    finally:
        told.write_text(content)
    for name in ("process", "prediction", "label", "data_std", "unit_input", "data_range"):
        assert getattr(found, name) == getattr(whole, name), name


def test_every_solver_walks_it_and_latents_lead_back(run):
    kind, place = run
    model = ddim.load(place)
    for name in SOLVERS:
        x = model.sample(2, steps=4, solver=name, seed=0)
        assert x.shape == (2, 1, 8, 8) and bool(torch.isfinite(x).all()), name
    x = model.sample(2, steps=6, seed=0, clip=False).clamp(-1, 1)
    z = model.encode(x, steps=8, spacing="logsnr")
    assert float(z.certificate.psnr.min()) > 60, kind
    torch.testing.assert_close(model.decode(z), x, atol=2e-3, rtol=0)


def test_its_commands(run, tmp_path, capsys, data):
    _, place = run
    for words in (
        ["info", place], ["schedule", place, "--steps", "3"],
        ["sample", place, "--out", tmp_path / "s", "--n", "2", "--steps", "3", "--device", "cpu"],
        ["interpolate", place, "--between", "1", "2", "--frames", "3", "--steps", "3", "--out", tmp_path / "i"],
        ["tune", place, data, "--steps", "3", "--latents", "4", "--long", "8", "--candidates", "5", "--trials", "2"],
        ["evaluate", place, data, "--held-out", data, "--steps", "2", "--eta", "0", "--no-sigma-hat", "--n", "10",
         "--extractor", "pixels", "--out", tmp_path / "e"],
        ["sample", place, "--out", tmp_path / "t", "--n", "2", "--steps", "3", "--spacing", "tuned", "--solver",
         "dpm++2m"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        assert stop.value.code == 0, (words, capsys.readouterr().err)


@pytest.mark.parametrize("options", [("edm",), ("ve", "--draws", "levels"), ("flow", "--draws", "lognormal")])
def test_two_and_four_steps_are_six(data, tmp_path, options):
    for name, stops in (("whole", [6]), ("parts", [2, 6])):
        for stop in stops:
            again = ["--resume"] if (tmp_path / name).exists() else []
            assert train(data, tmp_path / name, stop, "--process", *options, *again) == 0
    one, two = (torch.load(checkpoints(tmp_path / n / "state")[-1], weights_only=True) for n in ("whole", "parts"))
    assert one["step"] == two["step"] == 6
    for part in ("network", "ema"):
        assert all(torch.equal(one[part][k], two[part][k]) for k in one[part])


def test_another_process_is_no_resume(data, tmp_path, capsys):
    assert train(data, tmp_path / "r", 1, "--process", "vp") == 0
    assert train(data, tmp_path / "r", 2, "--process", "subvp", "--resume") == 2
    assert "process was vp and is now subvp" in capsys.readouterr().err
    assert train(data, tmp_path / "n", 1, "--process", "edm", "--init", str(tmp_path / "r")) == 2
    assert "another noise schedule or process; give `process` vp" in capsys.readouterr().err.replace(
        "--process", "`process`"
    )


# -- a tiny network on a mixture ---------------------------------------------------------------------------------------

MEANS, STD = (-0.8, 0.7), 0.2


class Tiny(torch.nn.Module):
    """Two numbers in, two out, told a label of any size through its sinusoids."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.body = torch.nn.Sequential(
            torch.nn.Linear(1 + 16, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(),
            torch.nn.Linear(64, 1),
        )  # fmt: skip
        for p in self.body.parameters():
            std = 1.3 / p.shape[-1] ** 0.5 if p.ndim > 1 else 0.3
            torch.nn.init.normal_(p, 0.0, std, generator=g)
        self.scale = 1.0

    def forward(self, x, t, label=None):
        angle = (t / self.scale)[:, None] * 2.0 ** torch.arange(8)
        return self.body(torch.cat([x, angle.sin(), angle.cos()], 1))


def mixture(step, n):
    z = torch.from_numpy(generator(0, "mixture", step).standard_normal((n, 2), dtype="float32"))
    return torch.where(z[:, :1] < 0.0, MEANS[0], MEANS[1]) + STD * z[:, 1:]


@pytest.mark.parametrize(
    ("process", "prediction", "scale"), [("vp", "eps", 999.0), ("ve", "eps", 1.0), ("flow", "velocity", 1000.0)]
)
def test_a_tiny_network_learns_a_mixture(process, prediction, scale):
    """Its denoiser is close to the exact one where the training looked, and what it samples is the mixture."""
    recipe = Recipe(
        process=process, prediction=prediction, batch_size=256, lr=1e-2, warmup=10, lr_decay_steps=300, ema=0.9
    )
    network = Tiny()
    network.scale = scale
    state = state_of(network, recipe, "cpu")

    def batch(step, rows):
        return Batch(mixture(step, 256)[rows], None)

    for _ in fit(state, batch, Denoising.of(recipe), max_steps=300):
        pass
    network.eval()
    k = Checkpoint(
        network, recipe.noise_process(), prediction, (1,), "own", "here", "", unit_input=recipe.unit_input,
        time_label=recipe.time_label,
    )  # fmt: skip
    oracle = ddim.MixtureDenoiser(k.process, [1.0, 1.0], list(MEANS), STD**2)
    denoise = k.denoiser()
    x0 = mixture(10**6, 500)
    for ratio in (0.2, 0.7, 2.0):
        t = k.process.time_of(ratio)
        at = k.process.at(t)
        x_t = at.signal * x0 + at.noise * noise(range(500), (1,))
        with torch.no_grad():
            apart = float((denoise(x_t, t).x0 - oracle(x_t, t).x0).square().mean())
        best = float((oracle(x_t, t).x0 - x0).square().mean())
        assert apart < 0.15 * best + 0.02, (ratio, apart, best)
    times = ddim.tau(k.process, 20, ddim.process.usual_spacing(k.process))
    start = k.process.start(times[0]) * noise(range(500), (1,))
    with torch.no_grad():
        made = ddim.sample(denoise, start, times)
    assert float(made.mean()) == pytest.approx(float(x0.mean()), abs=0.12)
    assert float(made.std()) == pytest.approx(float(x0.std()), abs=0.12)


# -- the times trained on ----------------------------------------------------------------------------------------------


def test_the_laws_of_times():
    g = generator(0, "test", 0)
    edm = process_of("edm")
    sigma = draw_times(edm, "lognormal", 1, g, 4000).log()
    assert float(sigma.mean()) == pytest.approx(-1.2, abs=0.06) and float(sigma.std()) == pytest.approx(1.2, abs=0.05)
    ve = process_of("ve")
    levels = {ve.at(float(t)).noise for t in draw_times(ve, "levels", 10, g, 500)}
    steps = np.diff(np.log(sorted(levels)))
    assert len(levels) == 10 and np.allclose(steps, math.log(5000) / 9, rtol=1e-4)  # NCSN's geometric sequence
    t = draw_times(process_of("vp"), "uniform", 1, g, 4000)
    assert float(t.min()) >= 1e-3 and float(t.max()) <= 1.0 and float(t.mean()) == pytest.approx(0.5, abs=0.02)
    schedule = ddim.Schedule.cosine()
    t = draw_times(schedule, "lognormal", 1, np.random.default_rng(5), 4000)
    angle = np.arctan(np.exp(-1.2 + 1.2 * np.random.default_rng(5).standard_normal(4000)))
    angles = (1 / schedule.alpha_bar[1:].double() - 1).sqrt().arctan().numpy()
    assert (t.numpy() == 1 + np.abs(angles - angle[:, None]).argmin(1)).all()  # between times angles go linearly
    ratio = (1 / schedule.alpha_bar[t] - 1).sqrt().log()  # of whole times: the nearest, so that the ends are cut
    assert t.dtype == torch.int64 and int(t.min()) >= 1 and int(t.max()) <= 1000
    assert float(ratio.mean()) == pytest.approx(-1.2, abs=0.06) and float(ratio.std()) == pytest.approx(1.2, abs=0.05)
    with pytest.raises(ddim.Refused, match="draw them uniform or lognormal"):
        draw_times(schedule, "levels", 10, g, 4)
    flow = process_of("flow")
    t = draw_times(flow, "lognormal", 1, g, 4000)
    assert float((t / (1 - t)).log().mean()) == pytest.approx(-1.2, abs=0.06)  # t/(1 - t) is the flow's noise/signal


def test_labels_of_time():
    vp, edm = process_of("vp"), process_of("edm")
    t = torch.tensor([0.25, 1.0], dtype=torch.float64)
    assert TimeLabel("time", 999.0)(t, vp).tolist() == pytest.approx([249.75, 999.0])
    assert TimeLabel("noise")(t, edm).tolist() == [0.25, 1.0]
    assert TimeLabel("log-sigma", 0.25)(t, edm).tolist() == pytest.approx([math.log(0.25) / 4, 0.0])
    other = TimeLabel("time", 999.0, of=vp)
    at = vp.at(0.25)
    assert other(torch.tensor([at.noise / at.signal], dtype=torch.float64), edm).tolist() == pytest.approx([249.75])
    assert TimeLabel.from_json(other.as_json()) == other and str(other) == "999 t, t of vp(0.1, 20)"
    with pytest.raises(ddim.Refused, match="no signal"):
        TimeLabel("log-sigma")(torch.tensor([1.0], dtype=torch.float64), process_of("flow"))
    with pytest.raises(ddim.Refused, match="unknown clock"):
        TimeLabel("sigma")
