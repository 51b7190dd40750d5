"""Evaluation on Gaussian data, where the right numbers are known; caching; the answer; the report; the command."""

import csv
import hashlib
import json
import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from ddim import GaussianDenoiser, Schedule, tau
from ddim.cli.commands.evaluate import Command
from ddim.data import Images, Report
from ddim.denoise import NONE, Denoiser
from ddim.files import digest
from ddim.jobs import Cell, Made, Reference, answer, cell_named, compared, make, real, split, table_of, write_report
from ddim.jobs.evaluate import measured
from ddim.metrics import Moments, extractor, frechet_bias
from ddim.model import Sampler
from ddim.pixels import PixelSpace, save_png, to_uint8
from ddim.process import noise

SCHEDULE = Schedule.linear()
VARIANCE, SHAPE, N = 0.04, (1, 2, 2), 700
PIXELS = extractor("pixels")


class Calls(Denoiser):
    process, invertible = SCHEDULE, True

    def __init__(self):
        self.oracle, self.count = GaussianDenoiser(SCHEDULE, 0.1, VARIANCE), 0

    def __call__(self, x_t, t, conditions=NONE):
        self.count += 1
        return self.oracle(x_t, t)


SETTINGS = {"label": None, "guidance": 1.0, "clip": None, "precision": "fp32", "device": "cpu"}


def sampler(denoise, cell, reading=(), **settings):
    recipe = {"weights": "w" * 64, "reading": dict(reading), **SETTINGS, **settings}
    times = tau(1000, cell.steps, cell.spacing)
    space, cpu = PixelSpace.of(SHAPE), torch.device("cpu")
    return Sampler(denoise, denoise, lambda seeds: NONE, cell.method(), times, space, cpu, recipe)


def last(job):
    *_, made = job
    return made


def made_by(denoise, cell, folder, n=N, batch_size=500, **settings):
    return last(make(sampler(denoise, cell, **settings), cell, range(n), PIXELS, batch_size=batch_size, folder=folder))


def real_images(n=4000, labels=None):
    x = noise(range(n), SHAPE, purpose="real") * math.sqrt(VARIANCE) + 0.1
    return Images(to_uint8(x), labels, None, Report("gaussian", n, SHAPE, sha256="d" * 64), "gaussian")


def variance_of(cell):
    """The exact variance each row generates (docs/theory.md): v' = k^2 v + sigma^2 from v = 1 at T."""
    v, times = 1.0, tau(1000, cell.steps, cell.spacing)
    for t, s in pairwise(times):
        a, b = SCHEDULE.at(t).alpha_bar, SCHEDULE.at(s).alpha_bar
        posterior = (1 - b) / (1 - a) * (1 - a / b)
        std2 = posterior * (1.0 if cell.eta is None else cell.eta**2)
        k = (math.sqrt(a * b) * VARIANCE + math.sqrt((1 - b - std2) * (1 - a))) / (a * VARIANCE + 1 - a)
        v = k**2 * v + (std2 if cell.eta is not None else (1 - a / b) * (s > 0))
    return v


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, None])
def test_the_distance_is_the_closed_form(eta, tmp_path):
    """Gaussian data, 4 pixels: FD = |mean difference|^2 + 4 (sqrt l - sqrt v)^2, plus the bias of finite n."""
    cell = Cell("ddim", eta, 10, "uniform")
    reference = Reference(last(real(real_images(), np.arange(4000), PIXELS, batch_size=1000, folder=tmp_path)))
    row = reference.row(made_by(Calls(), cell, tmp_path), cell, None)
    v = min(variance_of(cell), 10.0)
    expected = 4 * (math.sqrt(VARIANCE) - math.sqrt(v)) ** 2
    assert row.distance == pytest.approx(expected + row.bias, rel=0.12, abs=6e-4)
    assert row.bias == pytest.approx(frechet_bias(torch.eye(4) * VARIANCE, N, 4000), rel=0.1)
    assert row.nfe == 10 and row.n == N and row.steps == 10
    assert row.inception_score is None and row.class_accuracy is None


def test_rows_are_ordered_as_theory_says_and_the_floor_is_the_bias(tmp_path):
    cells = table_of([10, 50], [0.0, 1.0], ["ddim", "heun"], ["uniform"], sigma_hat=True)
    images = real_images()
    at, held = split(images, N, 10**6)
    assert not set(at) & set(held) and len(at) + len(held) == 4000
    reference = Reference(last(real(images, at, PIXELS, batch_size=999, folder=tmp_path)))
    made = {c: made_by(Calls(), c, tmp_path) for c in cells}
    rows = {c: reference.row(made[c], c, None) for c in cells}
    floor = reference.row(
        last(real(images, held, PIXELS, batch_size=999, folder=tmp_path)), None, None, "real, held out"
    )
    assert floor.distance == pytest.approx(floor.bias, abs=3 * floor.bias) and floor.distance < 1e-3
    assert floor.precision > 0.9 and floor.coverage > 0.9 and abs(floor.kid) < 3 * floor.kid_std + 1e-6
    best, worst = Cell("ddim", 0.0, 50, "uniform"), Cell("ddim", None, 10, "uniform")
    assert rows[best].distance < rows[Cell("ddim", 0.0, 10, "uniform")].distance < rows[worst].distance
    assert rows[Cell("heun", 0.0, 50, "uniform")].nfe == 99  # its last step takes one call
    full = {(r.solver, r.eta, r.steps): r for r in compared(rows, made)}
    assert full["heun", "0", 50].consistency == 0.0  # the deterministic row of most calls is the measure
    for steps in (10, 50):  # x_S = K_S x_T; unrelated Gaussians are sqrt 2 times as far apart as one is long
        shrunk = math.sqrt(variance_of(Cell("ddim", 0.0, steps, "uniform")) / VARIANCE)
        assert full["ddim", "0", steps].consistency == pytest.approx((1 - shrunk) / math.sqrt(2), rel=0.1)
    assert full["ddim", "1", 50].consistency > 0.5
    assert full["ddim", "0", 50].rms < full["ddim", "0", 10].rms < full["ddim", "1", 50].rms


def test_a_cell_is_made_once_and_again_when_anything_that_matters_changes(tmp_path):
    cell, denoise = Cell("ddim", 0.0, 5, "uniform"), Calls()
    first = made_by(denoise, cell, tmp_path, n=20, batch_size=10)
    assert denoise.count == 10  # 2 batches of 5 calls
    again = made_by(denoise, cell, tmp_path, n=20, batch_size=10)
    assert denoise.count == 10
    assert torch.equal(first.features, again.features) and np.array_equal(first.pixels, again.pixels)
    assert again.nfe == 5 and again.seconds_per_image == first.seconds_per_image
    for change in (
        lambda: made_by(denoise, cell, tmp_path, n=20, reading={"prediction": "v"}),
        lambda: made_by(denoise, Cell("ddim", 1.0, 5, "uniform"), tmp_path, n=20),
        lambda: made_by(denoise, Cell("ddim", 0.0, 5, "trailing"), tmp_path, n=20),
        lambda: made_by(denoise, cell, tmp_path, n=21),
        lambda: made_by(denoise, cell, tmp_path, n=20, guidance=2.0),
    ):
        before = denoise.count
        change()
        assert denoise.count == before + 5


def test_cells_of_version_0_1_are_found_again(tmp_path):
    """The name of a cell's file is a hash of what decides it; this one was computed by hand from what 0.1 hashed."""
    cell = Cell("ddim", None, 5, "uniform")
    made_by(Calls(), cell, tmp_path, n=3, reading={"prediction": "eps"}, label="cycle")
    key = {
        "cell": "ddim eta=sigma-hat uniform S=5", "format": 2, "weights": "w" * 64, "shape": [1, 2, 2],
        "tau": list(tau(1000, 5)), "reading": {"prediction": "eps"}, "solver": "ddim", "eta": "sigma-hat",
        "seeds": [0, 1, 2],
        "settings": {"label": "cycle", "guidance": 1.0, "clip": None, "precision": "fp32", "device": "cpu"},
        "extractor": {"name": PIXELS.name, "resize": PIXELS.resize, "weights": PIXELS.weights_hash},
    }  # fmt: skip
    words = json.dumps(key, sort_keys=True).encode()
    assert [p.stem for p in tmp_path.iterdir()] == [hashlib.blake2b(words, digest_size=12).hexdigest()]


def test_an_interrupted_cell_leaves_nothing_that_looks_done(tmp_path):
    cell, denoise = Cell("ddim", 0.0, 5, "uniform"), Calls()
    job = make(sampler(denoise, cell), cell, range(30), PIXELS, batch_size=10, folder=tmp_path)
    assert next(job) == 10
    job.close()
    assert not list(tmp_path.iterdir())
    whole = made_by(denoise, cell, tmp_path, n=30, batch_size=10)
    assert torch.equal(whole.features, made_by(Calls(), cell, tmp_path / "other", n=30, batch_size=10).features)


def test_a_long_cell_goes_on_where_it_stopped(tmp_path, monkeypatch):
    """A row of 1000 steps takes an hour here; what was made of it is kept."""
    monkeypatch.setattr(measured, "EVERY", 0.0)
    monkeypatch.setattr(measured, "SHARE", math.inf)
    cell, denoise = Cell("ddim", 1.0, 5, "uniform"), Calls()
    job = make(sampler(denoise, cell), cell, range(30), PIXELS, batch_size=10, folder=tmp_path)
    assert [next(job), next(job)] == [10, 20]
    job.close()
    assert [p.suffix for p in tmp_path.iterdir()] == [".part"]
    before = denoise.count
    whole = made_by(denoise, cell, tmp_path, n=30, batch_size=10)
    assert denoise.count == before + 5  # only the third batch
    straight = made_by(Calls(), cell, tmp_path / "other", n=30, batch_size=10)
    assert torch.equal(whole.features, straight.features) and np.array_equal(whole.pixels, straight.pixels)
    assert (whole.nfe, whole.times) == (5, tau(1000, 5))
    assert [p.suffix for p in tmp_path.glob("*.*")] == [".safetensors"]


def test_images_do_not_depend_on_the_batch_size(tmp_path):
    cell = Cell("ddim", 1.0, 5, "uniform")
    a = made_by(Calls(), cell, tmp_path / "a", n=12, batch_size=12)
    b = made_by(Calls(), cell, tmp_path / "b", n=12, batch_size=5)
    assert np.array_equal(a.pixels, b.pixels)


def test_table_of():
    cells = table_of([5, 10], [0.0, 1.0], ["ddim", "dpm++2m", "dpm++2m-sde"], ["uniform"], sigma_hat=True)
    assert [c.name for c in cells] == [
        "ddim eta=0 uniform S=5", "ddim eta=0 uniform S=10", "ddim eta=1 uniform S=5", "ddim eta=1 uniform S=10",
        "ddim eta=sigma-hat uniform S=5", "ddim eta=sigma-hat uniform S=10",
        "dpm++2m eta=0 uniform S=5", "dpm++2m eta=0 uniform S=10",
        "dpm++2m-sde eta=1 uniform S=5", "dpm++2m-sde eta=1 uniform S=10",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="unknown solver 'euler'"):
        table_of([5], [0.0], ["euler"], ["uniform"], sigma_hat=False)
    with pytest.raises(ValueError, match="eta must be at least 0"):
        table_of([5], [-1.0], ["ddim"], ["uniform"], sigma_hat=False)
    assert table_of([5], [], ["ddim"], ["uniform"], sigma_hat=False, sigma_learned=True) == [
        cell_named("ddim:learned:5:uniform")
    ]
    assert cell_named("ddim:learned:5:uniform").name == "ddim eta=sigma-learned uniform S=5"
    with pytest.raises(ValueError, match="sigma-learned is a noise of solver 'ddim'"):
        cell_named("heun:learned:5:uniform")
    with pytest.raises(ValueError, match="sigma-hat is a noise of solver 'ddim'"):
        Cell("heun", None, 5, "uniform").method()


def fake_row(distance, steps, solver="ddim", eta="0", spacing="uniform", std=None):
    reference = Reference(Made(torch.eye(8), None, np.zeros((1, 2, 2, 1), np.uint8)))
    row = reference.row(Made(torch.eye(8) * 2, None, np.zeros((1, 2, 2, 1), np.uint8)), None, None)
    own = {n: getattr(row, n) for n in row.__dataclass_fields__}
    given = {"distance": distance, "behind": distance - 5.0, "behind_std": std, "steps": steps, "nfe": float(steps)}
    return type(row)(**{**own, **given, "solver": solver, "eta": eta, "spacing": spacing})


def test_the_answer_is_the_fewest_calls_within_5_percent_of_the_best():
    rows = [
        fake_row(10.0, 10),
        fake_row(5.26, 20),
        fake_row(5.2, 50),
        fake_row(5.0, 100),
        fake_row(5.04, 12, "dpm++2m"),
    ]
    over_all, plain = answer(rows, "FD-x")
    assert (
        "are 12 (12 network calls an image): dpm++2m" in over_all
        and "best is ddim eta=0 uniform S=100 at 5" in over_all
    )
    assert "With plain DDIM" in plain and "are 50 (50" in plain  # 5.26 is 5.2 % above the best
    noisy = [fake_row(10.0, 10, std=1.0), fake_row(5.5, 20, std=0.3), fake_row(5.0, 100, std=0.0)]
    first, second, *_ = answer(noisy, "FD-x")
    assert "are 100 (100" in first
    assert "not told apart from the best are 20, ddim eta=0 uniform S=20, 0.5 +- 0.3 behind it" in second
    sure = [fake_row(5.5, 20, std=0.1), fake_row(5.0, 100, std=0.0)]
    assert not any("told apart" in line for line in answer(sure, "FD-x"))
    floor = replace(fake_row(5.1, 0), distance_std=0.1, n=500)
    known = [replace(r, distance_std=0.0) for r in rows]
    assert answer(known, "FD-x", floor)[-1] == (
        "4 of 5 rows are not told apart from 500 real images (5.1 +- 0.1) at this n: the farthest of them is "
        "ddim eta=0 uniform S=20, 5.26 +- 0. A larger `n` would tell more."
    )
    assert answer(rows, "FD-x", replace(floor, distance=1.0)) == answer(rows, "FD-x")
    wide = [replace(fake_row(d, s), distance_std=0.25) for d, s in ((1.115, 10), (1.5, 5))]  # apart by .535 and .92
    *_, words = answer(wide, "FD-x", replace(floor, distance=0.58, distance_std=0.32))  # 2 standard errors are .81
    assert words.startswith("1 of 2 rows is not told apart from 500 real images (0.58 +- 0.32) at this n: ddim eta=0")
    assert "1.115 +- 0.25" in words and "as near" not in words
    (only,) = answer(rows[:1], "FD-x")
    assert only.endswith("which is the best.")


def test_rows_are_compared_seed_by_seed():
    """B is A moved by c: FD(B) - FD(A) = c.c + 2 c.(mean A - mean R); its spread over sets of n: 2 |c| sqrt(v / n)."""
    n, v, c = 400, 2.0, 0.3
    a = noise(range(n), (8,), purpose="features").double() * math.sqrt(v)
    b = a + torch.tensor([c, *[0.0] * 7], dtype=torch.float64)
    shown = np.zeros((1, 2, 2, 1), np.uint8)
    reference = Reference(Made(noise(range(900), (8,), purpose="real").double() * math.sqrt(v), None, shown))
    made = {
        Cell("ddim", 1.0, 10, "uniform"): Made(a, None, shown),
        Cell("ddim", 1.0, 20, "uniform"): Made(b, None, shown),
    }
    rows = compared({cell: reference.row(own, cell, None) for cell, own in made.items()}, made)
    best, other = sorted(rows, key=lambda r: r.distance)
    apart = float(
        (b.mean(0) - reference.moments.mean).square().sum() - (a.mean(0) - reference.moments.mean).square().sum()
    )
    assert (best.behind, best.behind_std) == (0.0, 0.0)
    assert other.behind == pytest.approx(abs(apart), abs=1e-9)
    assert other.behind_std == pytest.approx(2 * c * math.sqrt(v / n), rel=0.4)  # of 20 resamples: known within 16 %
    assert other.behind_std < 0.7 * math.hypot(best.distance_std, other.distance_std)
    assert other.consistency is None  # nothing here is deterministic


def test_what_the_extractor_cannot_say_is_left_out():
    shown, x = np.zeros((1, 2, 2, 1), np.uint8), noise(range(40), (3,), purpose="features")
    logits = torch.nn.functional.one_hot(torch.arange(40) % 3, 3).float()
    reference = Reference(Made(x, logits, shown))
    assert reference.classes == 3 and Reference(Made(x, None, shown)).classes is None
    cell = Cell("ddim", 0.0, 5, "uniform")
    assert reference.row(Made(x, logits, shown), cell, [i % 3 for i in range(40)]).class_accuracy == 1.0
    dull = Made(torch.ones(40, 3), logits, shown)  # a collapsed model: nothing to measure consistency by
    (row,) = compared({cell: reference.row(dull, cell, None)}, {cell: dull})
    assert row.consistency is None and row.class_accuracy is None and row.rms == 0.0


def test_the_report_is_one_page_with_every_stamp(tmp_path):
    cells = table_of([5, 10], [0.0, 1.0], ["ddim"], ["uniform"], sigma_hat=False)
    reference = Reference(last(real(real_images(300), np.arange(300), PIXELS, batch_size=300, folder=tmp_path)))
    made = {c: made_by(Calls(), c, tmp_path, n=60) for c in cells}
    rows = compared({c: reference.row(made[c], c, None) for c in cells}, made)
    floor = reference.row(next(iter(made.values())), None, None, "real, held out")
    stamp = {"model": "<m>", "distance": "FD-pixels", "n": 60, "weights sha256": "w" * 64}
    page = write_report(tmp_path / "r", rows, floor, made, stamp, ["plain & simple"]).read_text()
    assert "&lt;m&gt;" in page and "plain &amp; simple" in page and "w" * 64 in page and "FD-pixels" in page
    assert page.count("<svg") == 4 and page.count("data:image/png;base64,") == 4
    loads = re.findall(r"(?:src|href)=['\"]([^'\"]*)", page)
    assert all(link.startswith(("data:", "#")) for link in loads), "the page loads something from elsewhere"
    table = list(csv.DictReader((tmp_path / "r" / "report.csv").open()))
    assert len(table) == 5 and table[-1]["solver"] == "real, held out"
    assert float(table[0]["distance"]) == rows[0].distance and table[0]["stamp_n"] == "60"
    assert table[0]["tau"] == " ".join(map(str, tau(1000, 5)))
    document = json.loads((tmp_path / "r" / "report.json").read_text())
    assert document["stamp"]["weights sha256"] == "w" * 64 and len(document["rows"]) == 4
    assert len(list((tmp_path / "r" / "grids").glob("*.png"))) == 4


def test_images_that_are_not_finite_are_refused(tmp_path):
    class Broken(Denoiser):
        process, invertible = SCHEDULE, True

        def __call__(self, x_t, t, conditions=NONE):
            p = GaussianDenoiser(SCHEDULE, 0.0, 1.0)(x_t, t)
            return type(p)(p.x0 * float("nan"), p.eps)

    with pytest.raises(ValueError, match="not finite, first among seeds 0-4"):
        made_by(Broken(), Cell("ddim", 0.0, 2, "uniform"), tmp_path, n=5)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model folder with random weights and a folder of 40 grey 8x8 images."""
    from ddim.checkpoints import save_folder
    from ddim.nets import build

    root = tmp_path_factory.mktemp("small")
    network = build("digits", shape=(1, 8, 8), num_classes=3)
    save_folder(
        root / "model",
        network,
        Schedule.linear(),
        prediction="eps",
        meta={"shape": (1, 8, 8), "num_classes": 3, "null_label": 3},
    )
    (root / "data").mkdir()
    for i, pixels in enumerate(to_uint8(noise(range(40), (1, 8, 8)).clamp(-1, 1))):
        save_png(root / "data" / f"{i}.png", pixels)
    return root


def test_the_command(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    options = {"steps": "2,3", "eta": "0,1", "n": 12, "extractor": "pixels", "batch_size": 8, "device": "cpu"}
    Command(
        str(small / "model"), str(small / "data"), out=tmp_path / "report", also="dpm++2m:0:2:trailing", **options
    ).run()
    out = capsys.readouterr().out
    assert "FD-pixels" in out and "the fewest steps within 5 % of the best" in out and "real, held out" in out
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [(r["solver"], r["eta"], r["steps"]) for r in document["rows"]] == [
        ("ddim", "0", 2), ("ddim", "0", 3), ("ddim", "1", 2), ("ddim", "1", 3), ("ddim", "sigma-hat", 2),
        ("ddim", "sigma-hat", 3), ("dpm++2m", "0", 2),
    ]  # fmt: skip
    assert document["stamp"]["n"] == 12 and document["stamp"]["seeds"] == "0-11"
    assert len(document["stamp"]["weights sha256"]) == 64 and document["stamp"]["reference"].startswith("28 images")
    cells = {p: p.stat().st_mtime_ns for p in (tmp_path / "report" / "cells").glob("*")}
    Command(str(small / "model"), str(small / "data"), out=tmp_path / "report", **options).run()
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "report" / "cells").glob("*")} == cells


@pytest.mark.parametrize(
    ("options", "message"),
    [({}, "--out REPORT"), ({"out": "r", "steps": "x"}, "whole numbers"), ({"out": "r", "eta": "x"}, "takes numbers"),
     ({"out": "r", "also": "ddim:0:5"}, "SOLVER:ETA:STEPS:SPACING"), ({"out": "r", "n": 1}, "at least 10"),
     ({"out": "r", "steps": "", "also": ""}, "no rows"), ({"out": "r", "n": 39}, "holds 40 images"),
     ({"out": "r", "spacing": "tuned", "n": 12}, "ddim tune"),
     ({"out": "r", "solver": "heun", "steps": "2000"}, "1000"),
     ({"out": "r", "n": 12, "extractor": "vgg"}, "there is no extractor")],
)  # fmt: skip
def test_the_command_refuses(options, message, small, tmp_path, monkeypatch):
    monkeypatch.setenv("DDIM_CACHE", str(tmp_path / "cache"))
    if "out" in options:
        options = {**options, "out": tmp_path / "r"}
    with pytest.raises(ValueError, match=re.escape(message)):
        Command(str(small / "model"), str(small / "data"), **{"device": "cpu", **options}).run()
    assert not (tmp_path / "r" / "report.html").exists()


def test_a_foreign_folder_is_not_written_into(small, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="holds no evaluation"):
        Command(str(small / "model"), str(small / "data"), out=tmp_path / "mine").run()


def test_digest_knows_every_value():
    assert digest({"a": [1, 2], "b": 0.5}) == digest({"b": 0.5, "a": [1, 2]}) != digest({"b": 0.5, "a": [2, 1]})
    assert Moments.of(torch.eye(3)).n == 3
